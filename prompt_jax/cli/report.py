"""The table at the end of a run."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.data.baseline import bag_of_words, majority
from prompt_jax.data.example import Example
from prompt_jax.training.seeds import MeanStd, summarize


class Row(NamedTuple):
  """One system and its scores, in percent; several dicts for several seeds."""

  name: str
  scores: Sequence[Mapping[str, float]]
  trained: int | None = None  # parameters


def baselines(train: Sequence[Example], test: Sequence[Example]) -> list[Row]:
  """What needs no model of ours; none for a task without labels."""
  if any(e.label is None for e in (*train, *test)):
    return []
  return [
    Row('majority class', [{'accuracy': 100 * majority(train, test)}]),
    Row('TF-IDF + logistic regression', [{'accuracy': 100 * bag_of_words(train, test)}]),
  ]


def show(rows: Sequence[Row], title: str, console: Console) -> None:
  """Prints one line a system and one column a score; "-" where a system has none."""
  names = list(dict.fromkeys(name for row in rows for s in row.scores for name in s))
  table = Table(title=title, title_justify='left', title_style='bold')
  table.add_column('system')
  for name in names:
    table.add_column(name, justify='right')
  table.add_column('trained parameters', justify='right')
  for row in rows:
    values = summarize(row.scores)
    cells = [_cell(values.get(name)) for name in names]
    table.add_row(row.name, *cells, '-' if row.trained is None else f'{row.trained:,}')
  console.print(table)


def _cell(value: MeanStd | None) -> str:
  if value is None:
    return '-'
  return f'{value.mean:.1f}' if value.n == 1 else f'{value.mean:.1f} ± {value.std:.1f}'


def write(path: pathlib.Path, rows: Sequence[Row], **facts: Any) -> None:
  """The same as JSON: {"systems": {name: {"scores": [...], "trained": n}}, ...}."""
  systems = {r.name: {'scores': [dict(s) for s in r.scores], 'trained': r.trained} for r in rows}
  write_atomically(path, (json.dumps({**facts, 'systems': systems}, indent=2) + '\n').encode())
