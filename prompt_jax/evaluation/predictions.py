"""What a model answers, the file it is written to, and the progress bar of an evaluation."""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console

from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.runtime.notebook import draws_bars, ends

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


def label_probabilities(scores: np.ndarray) -> np.ndarray:
  """float64[..., C]: softmax over the labels of log-probabilities in nats, float[..., C]."""
  x = np.asarray(scores, np.float64)
  x = np.exp(x - np.amax(x, axis=-1, keepdims=True))
  return x / np.sum(x, axis=-1, keepdims=True)


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
