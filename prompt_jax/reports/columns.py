"""The columns of a report: a value of each run by name; sorting and grouping of runs."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from prompt_jax.configuration import description
from prompt_jax.errors import unknown
from prompt_jax.reports.runs import FINISHED, Run
from prompt_jax.training.records import MeanStd, mean_std

T = TypeVar('T')
# Text, a number, or mean and deviation; None where a run has none.
Value = str | float | int | MeanStd | None


def _interval(run: Run) -> Value:
  return f'{run.interval[0]:.1f} to {run.interval[1]:.1f}' if run.interval else None


def _steps(run: Run) -> Value:
  if run.wanted is None:
    return None
  return run.wanted if run.status == FINISHED else f'{run.steps:,} of {run.wanted:,}'


# Columns that are not scores, in order.
COLUMNS: dict[str, Callable[[Run], Value]] = {
  'folder': lambda run: run.name,
  'verb': lambda run: run.verb,
  'task': lambda run: run.task,
  'split': lambda run: run.split,
  'model': lambda run: run.model,
  'method': lambda run: run.method,
  'rows': lambda run: run.rows,
  'trained': lambda run: run.trained,
  'parameters': lambda run: run.parameters,
  'learning_rate': lambda run: run.rate,
  'steps': _steps,
  'seeds': lambda run: ', '.join(map(str, run.seeds)) or None,
  'interval': _interval,
  'validation': lambda run: mean_std(run.best) if run.best else None,
  'seconds': lambda run: run.seconds,
  'status': lambda run: run.status,
  'note': lambda run: run.note or None,
}
INTERVAL = 'interval'  # the main score comes before this column, the others after it


@dataclasses.dataclass(frozen=True)
class ReportTable:
  """A table of a report.

  Attributes:
    names: of columns.
    rows: column name -> value.
    by: the columns that runs were grouped by, which are always shown.
  """

  names: tuple[str, ...]
  rows: tuple[Mapping[str, Value], ...]
  by: tuple[str, ...] = ()


def of_one_task(name: str) -> bool:
  """Whether a score is one of several tasks', as "rte/accuracy"."""
  return '/' in name


def score_names(runs: Sequence[Run]) -> list[str]:
  """The names of all scores, in the order in which runs have them."""
  return list(dict.fromkeys(name for run in runs for name in run.metrics))


def usual(runs: Sequence[Run]) -> list[str]:
  """The default columns: without scores of single tasks of a mixture, or intervals of none."""
  scores = [name for name in score_names(runs) if not of_one_task(name)]
  names: list[str] = []
  for name in COLUMNS:
    names += [*scores[:1], name, *scores[1:]] if name == INTERVAL else [name]
  if not any(run.interval for run in runs):
    names.remove(INTERVAL)
  return names


def check_names(names: Sequence[str], runs: Sequence[Run]) -> None:
  """Refuses a name that is neither a column, nor a score, nor in any run's configuration.

  Raises:
    UserError: says which, and what there is.
  """
  scores = score_names(runs)
  settings = {name for run in runs for name in run.settings}
  for name in names:
    if name not in COLUMNS and name not in scores and name not in settings:
      macros = {n for n in settings if n.isidentifier()}
      raise unknown('column', name, {*COLUMNS, *scores, *macros})


def value(run: Run, name: str) -> Value:
  """The value of a run in a column: one of COLUMNS, a score, or a setting."""
  if name in COLUMNS:
    return COLUMNS[name](run)
  if name in run.metrics:
    return run.metrics[name]
  found: Any = description.value_of(run.settings, name)
  if found is None or (isinstance(found, int | float) and not isinstance(found, bool)):
    return found
  return found if isinstance(found, str) else repr(found)


def sorted_by(runs: Sequence[Run], name: str | None) -> list[Run]:
  """The runs in the order of a column.

  Args:
    runs: in any order.
    name: a column, descending with "-" before it; None: by task, then by folder. Runs without a
      value come last.
  """
  if name is None:
    return sorted(runs, key=lambda run: (run.task, run.name))
  return _in_order(runs, lambda run: value(run, name.removeprefix('-')), name.startswith('-'))


def with_sorted_rows(table: ReportTable, name: str | None) -> ReportTable:
  """The table with its rows in the order of a column, if it has that; see `sorted_by`."""
  if name is None or name.removeprefix('-') not in table.names:
    return table
  rows = _in_order(table.rows, lambda row: row[name.removeprefix('-')], name.startswith('-'))
  return dataclasses.replace(table, rows=tuple(rows))


def _in_order(things: Sequence[T], of: Callable[[T], Value], down: bool) -> list[T]:
  have = [x for x in things if of(x) is not None]
  have.sort(key=lambda x: order(of(x)), reverse=down)
  return have + [x for x in things if of(x) is None]


def order(found: Value) -> tuple[int, float, str]:
  """The sort key: numbers by size, then texts alphabetically."""
  if isinstance(found, MeanStd):
    found = found.mean
  if isinstance(found, int | float):
    return (0, -math.inf if math.isnan(found) else float(found), '')
  return (1, 0.0, str(found))


def table(runs: Sequence[Run], names: Sequence[str]) -> ReportTable:
  """One row per run."""
  return ReportTable(tuple(names), tuple({n: value(run, n) for n in names} for run in runs))


def grouped_table(runs: Sequence[Run], names: Sequence[str], by: Sequence[str]) -> ReportTable:
  """One row for runs of one task and split that are equal in some columns (`by`).

  Scores are means over all seeds of all runs of a group; of other columns it has the value that
  its runs share, or how many values they have.
  """
  groups: dict[Any, list[Run]] = {}
  for run in runs:
    key = (run.task, run.split, *(value(run, name) for name in by))
    groups.setdefault(key, []).append(run)
  rows = []
  scores = set(score_names(runs))
  for (_, _, *found), members in groups.items():
    row: dict[str, Value] = {'runs': len(members), **dict(zip(by, found, strict=True))}
    for name in names:
      if name in scores:
        pooled = [s[name] for run in members for s in run.scores if name in s]
        row[name] = mean_std(pooled) if pooled else None
      elif name == 'validation':
        pooled = [v for run in members for v in run.best]
        row[name] = mean_std(pooled) if pooled else None
      elif name not in by:
        row[name] = _shared([value(run, name) for run in members])
    rows.append(row)
  first = [n for n in ('task', 'split') if n in names and n not in by]
  rest = [n for n in names if n not in (*first, *by, 'folder')]
  return ReportTable((*by, *first, 'runs', *rest), tuple(rows), tuple(by))


def _shared(values: Sequence[Value]) -> Value:
  different = list(dict.fromkeys(values))
  return different[0] if len(different) == 1 else f'{len(different)} values'


def parted(table: ReportTable) -> tuple[dict[str, Value], ReportTable]:
  """Splits a table into the values that all rows share, and a table of the other columns.

  The first column and scores always stay in the table. Columns that are empty in all rows are
  dropped.
  """
  shared: dict[str, Value] = {}
  for name in table.names[1:]:
    if name in table.by:
      continue
    values = {row[name] for row in table.rows}
    may_leave = name in COLUMNS and name not in ('validation', 'seconds')
    if len(values) == 1 and ((may_leave and len(table.rows) > 1) or values == {None}):
      shared[name] = values.pop()
  left = tuple(name for name in table.names if name not in shared)
  return {n: v for n, v in shared.items() if v is not None}, ReportTable(left, table.rows, table.by)
