"""What a model answers: shown as it comes, in files, and kept so that the same is not asked twice.

A file of kept answers is named after a digest of all that they depend on; it holds scores and
answers and no text of the examples, gzipped JSON. What cannot be read is asked again.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.data.example import Example
from prompt_jax.errors import UserError
from prompt_jax.evaluation.metrics import Scores
from prompt_jax.features import COLUMNS
from prompt_jax.runtime.processes import draws_bars, ends

# Fields of a prediction that only some tasks have; left out of the file where they are None.
OPTIONAL = ('confidence', 'task', 'answers', 'group')
SECONDS_OF_A_LINE = 30.0
# Called after each batch with the number of examples in it.
Advance = Callable[[int], None]


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What the model made of one example.

  Attributes:
    input: the text.
    target: the correct text.
    prediction: the label's word ("rank", "constrained"), or the decoded text ("generate").
    correct: whether it is correct, as the metrics compare; None where the target is not known.
    scores: log-probabilities in nats: of each label by its word ("rank"; per token if normalised),
      or {"log_prob"} of the decoded tokens.
    confidence: the prediction's probability among the labels: softmax of the scores ("rank"), or
      of the tokens that decoding could choose from ("constrained"); None for free text.
    task: which of several tasks the example is from; None where there is only one.
    answers: all correct texts, where there are several; else None.
    group: key of examples that are scored together; None without groups.
  """

  input: str
  target: str
  prediction: str
  correct: bool | None
  scores: dict[str, float]
  confidence: float | None = None
  task: str | None = None
  answers: list[str] | None = None
  group: Any = None


def write_predictions(path: str | os.PathLike, predictions: Sequence[Prediction]) -> None:
  """Writes one JSON object a line: the fields of each prediction. Whole or not at all.

  Raises:
    UserError: the folder cannot be written.
  """
  found = (dataclasses.asdict(p) for p in predictions)
  rows = ({k: v for k, v in row.items() if k not in OPTIONAL or v is not None} for row in found)
  lines = (json.dumps(row, ensure_ascii=False) for row in rows)
  write_atomically(path, ''.join(f'{line}\n' for line in lines).encode())


@contextlib.contextmanager
def progress_bar(total: int, title: str, console: Console) -> Iterator[Advance]:
  """A bar with examples per second and the time of the end.

  Where no bar can be drawn there is a line every `SECONDS_OF_A_LINE`.
  """
  done, began = 0, time.monotonic()
  said = began

  def rate() -> str:
    seconds = time.monotonic() - began
    return f'{done / seconds:.1f}/s  {ends((total - done) * seconds / done)}' if done else ''

  def say(count: int) -> None:
    nonlocal done, said
    done += count
    if time.monotonic() - said > SECONDS_OF_A_LINE and done < total:
      said = time.monotonic()
      console.print(f'{title}: {done} of {total}  {rate()}', markup=False, highlight=False)

  if not draws_bars(console):
    yield say
    return
  from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
  from rich.progress import Progress as Bar

  columns = (
    TextColumn('{task.description}'),
    BarColumn(bar_width=None),
    MofNCompleteColumn(),
    TextColumn('{task.fields[rate]}'),
  )
  with Bar(*columns, console=console, transient=True) as bar:
    task = bar.add_task(title, total=total, rate='')

    def advance(count: int) -> None:
      nonlocal done
      done += count
      bar.update(task, advance=count, rate=rate())

    yield advance


SUFFIX = '.answers.json.gz'
MOST_FILES = 100
# What a file says of each answer; the rest is the example's.
FIELDS = ('prediction', 'correct', 'scores', 'confidence', 'task')


def answers_key(*parts: Any) -> str:
  """A digest of values whose `repr` tells them apart."""
  return hashlib.sha256(repr(parts).encode()).hexdigest()


def examples_digest(examples: Sequence[Example]) -> str:
  """A digest of all that an evaluation reads of examples."""
  total = hashlib.sha256()
  for e in examples:
    asked = (e.inputs_text, e.targets_text, e.label, e.task)
    fields = (e.fields.get('answers'), e.fields.get('group'))
    total.update(repr((asked, fields)).encode())
    total.update(e.inputs.tobytes())
    total.update(e.targets.tobytes())
  return total.hexdigest()


def answers_digest(examples: Sequence[Example]) -> str:
  """A digest of what predictions are judged on: inputs, and all that is known of the answers."""
  found = hashlib.sha256()
  for e in examples:
    fields = sorted((k, v) for k, v in e.fields.items() if k != COLUMNS)
    known = (e.label, e.targets_text, fields)
    found.update(e.inputs.tobytes() + e.targets.tobytes() + repr(known).encode())
  return found.hexdigest()[:16]


def read_answers(
  folder: pathlib.Path, name: str, examples: Sequence[Example]
) -> tuple[Scores, list[Prediction]] | None:
  """The scores and answers of a key; None where there are none."""
  try:
    found = json.loads(gzip.decompress((folder / f'{name}{SUFFIX}').read_bytes()))
    rows = found['answers']
    if found['key'] != name or len(rows) != len(examples):
      return None
    answers = [
      Prediction(
        input=e.inputs_text,
        target=e.targets_text,
        answers=row.pop('answers'),
        group=e.fields.get('group'),
        **row,
      )
      for e, row in zip(examples, rows, strict=True)
    ]
    return dict(found['scores']), answers
  except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
    return None


def keep_answers(
  folder: pathlib.Path, name: str, scores: Scores, predictions: Sequence[Prediction]
) -> None:
  """Keeps them, where the folder can be written; only the `MOST_FILES` latest files stay."""
  rows = [
    {**{field: getattr(p, field) for field in FIELDS}, 'answers': p.answers} for p in predictions
  ]
  text = json.dumps({'key': name, 'scores': scores, 'answers': rows})
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / f'{name}{SUFFIX}', gzip.compress(text.encode(), 6, mtime=0))
    files = sorted(folder.glob(f'*{SUFFIX}'), key=os.path.getmtime)
    for old in files[:-MOST_FILES]:
      old.unlink(missing_ok=True)
  except (OSError, UserError):
    return
