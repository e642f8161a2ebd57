"""What an evaluation leaves on disk and shows meanwhile."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Sequence

from rich.console import Console

from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.evaluation.evaluator import Advance
from prompt_jax.evaluation.prediction import Prediction

# What a prediction has in some tasks alone, and is then left out.
OPTIONAL = ('confidence', 'task', 'answers', 'group')


def write_predictions(path: str | os.PathLike, predictions: Sequence[Prediction]) -> None:
  """One JSON object a line: input, target, prediction, correct, scores, and what else there is.

  Whole or not at all.

  Raises:
    UserError: the folder cannot be written.
  """
  found = (dataclasses.asdict(p) for p in predictions)
  rows = ({k: v for k, v in row.items() if k not in OPTIONAL or v is not None} for row in found)
  lines = (json.dumps(row, ensure_ascii=False) for row in rows)
  write_atomically(path, ''.join(f'{line}\n' for line in lines).encode())


@contextlib.contextmanager
def progress(total: int, title: str, console: Console) -> Iterator[Advance]:
  """A bar with examples a second and the time left; nothing where there is no terminal."""
  if not console.is_terminal:
    yield lambda count: None
    return
  from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
  from rich.progress import Progress as Bar

  columns = (
    TextColumn('{task.description}'),
    BarColumn(bar_width=None),
    MofNCompleteColumn(),
    TextColumn('{task.fields[rate]}'),
    TimeRemainingColumn(),
  )
  with Bar(*columns, console=console, transient=True) as bar:
    task = bar.add_task(title, total=total, rate='')

    def advance(count: int) -> None:
      bar.advance(task, count)
      speed = bar.tasks[0].speed
      bar.update(task, rate=f'{speed:.1f}/s' if speed else '')

    yield advance
