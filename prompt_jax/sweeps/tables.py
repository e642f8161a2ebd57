"""The tables of a sweep: its plan, and its results."""

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from prompt_jax import byte_size
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.sweeps.cells import Cell, Job, settings_of
from prompt_jax.sweeps.check import Checked, Size
from prompt_jax.sweeps.state import Scored, State, scores
from prompt_jax.training.records import MeanStd, mean_std


class Line(NamedTuple):
  """One setting: its label, scores, number of seeds, and number of trained parameters."""

  label: Mapping[str, Any]
  scores: Mapping[str, MeanStd]
  seeds: int
  trained: int | None


def plan(
  jobs: Sequence[Job],
  states: Mapping[str, State],
  known: Mapping[str, Checked],
  console: Console,
) -> None:
  """Prints the number of runs to do, and their sizes.

  Args:
    jobs: of the sweep.
    states: by name of a job.
    known: by name of a job.
    console: where to print.
  """
  whats = [states[job.name].what for job in jobs]
  counts = [f'{whats.count(w)} {w}' for w in ('done', 'failed', 'submitted') if w in whats]
  left = len(jobs) - whats.count('done')
  cells = sum(len(job.cells) for job in jobs)
  what = f'{cells} cells' + (f' in {len(jobs)} runs' if cells > len(jobs) else '')
  console.print(f'{what}: {", ".join([*counts, f"{left} to run"])}', highlight=False)
  table = Table(title='one run of each size', title_justify='left')
  for name in ('model', 'method', 'length', 'runs', 'trainable', 'parameters', 'weights'):
    table.add_column(name, justify='left' if name in ('model', 'method') else 'right')
  rows: dict[tuple[str, ...], int] = {}
  for job in jobs:
    row = _size_row(job, known[job.name].size)
    rows[row] = rows.get(row, 0) + 1
  for row, n in rows.items():
    table.add_row(*row[:3], str(n), *row[3:])
  console.print(table)
  if (seconds := remaining(jobs, states)) is not None:
    console.print(f'About {spoken(seconds)} left, judging by the finished runs', highlight=False)


def _size_row(job: Job, size: Size) -> tuple[str, ...]:
  label = job.cells[0].label
  lengths = dict.fromkeys(str(cell.label.get('length', '-')) for cell in job.cells)
  weights = ', '.join(f'{byte_size.written(n)} {dtype}' for dtype, n in size.weights.items())
  return (
    str(label.get('model', 'embedded')),
    str(label.get('method', "the model's")),
    ','.join(lengths),
    f'{size.trainable:,}',
    f'{size.parameters:,}',
    weights,
  )


def remaining(jobs: Sequence[Job], states: Mapping[str, State]) -> float | None:
  """Estimated seconds for the remaining runs, from finished runs of the same model and method, or
  from all finished runs.

  None until a run has finished without an interruption.
  """
  kind = lambda job: (job.verb, job.cells[0].label.get('model'), job.cells[0].label.get('method'))
  took: dict[Any, list[float]] = {}
  for job in jobs:
    state = states[job.name]
    if state.what == 'done' and not state.resumed:
      took.setdefault(kind(job), []).append(state.seconds)
  if not took:
    return None
  every = [seconds for of_kind in took.values() for seconds in of_kind]
  left = [took.get(kind(job), every) for job in jobs if states[job.name].what != 'done']
  return sum(sum(of_kind) / len(of_kind) for of_kind in left)


def spoken(seconds: float) -> str:
  """ "40 s", "12 min", "3.5 h" """
  if seconds < 90:
    return f'{seconds:.0f} s'
  return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{seconds / 3600:.1f} h'


def gather(output: pathlib.Path, jobs: Sequence[Job], states: Mapping[str, State]) -> list[Line]:
  """One line for each setting with a finished cell."""
  found: dict[str, Scored] = {}
  for job in jobs:
    if states[job.name].what == 'done':
      found |= scores(output, job)
  every: list[Cell] = [cell for job in jobs for cell in job.cells]
  lines = []
  for cells in settings_of(sorted(every, key=lambda c: list(map(repr, c.label.values())))):
    known = [found[cell.name] for cell in cells if cell.name in found]
    if known:
      names = dict.fromkeys(name for values, _ in known for name in values)
      each = {n: mean_std([v[n] for v, _ in known if n in v]) for n in names}
      lines.append(Line(cells[0].label, each, len(known), known[0][1]))
  return lines


def show(lines: Sequence[Line], console: Console) -> None:
  """Prints the table."""
  header, rows = _text(lines)
  table = Table(title='scores in percent', title_justify='left')
  for name in header:
    table.add_column(name, overflow='fold')
  for row in rows:
    table.add_row(*row)
  console.print(table, markup=False)


def write(
  output: pathlib.Path, lines: Sequence[Line], failed: Mapping[str, str]
) -> tuple[pathlib.Path, pathlib.Path]:
  """Writes sweep.csv, with plain numbers, and sweep.md, for people.

  Args:
    output: folder of the sweep.
    lines: see `gather`.
    failed: name of a run -> its last line.
  """
  names = list(dict.fromkeys(name for line in lines for name in line.scores))
  axes = list(lines[0].label) if lines else []
  text = io.StringIO()
  table = csv.writer(text, lineterminator='\n')
  table.writerow([*axes, 'seeds', 'trained', *(f'{n} {x}' for n in names for x in ('mean', 'std'))])
  for line in lines:
    values = [line.scores.get(name) for name in names]
    numbers = [x for v in values for x in (('', '') if v is None else (v.mean, v.std))]
    trained = '' if line.trained is None else line.trained
    table.writerow([*line.label.values(), line.seeds, trained, *numbers])
  paths = output / 'sweep.csv', output / 'sweep.md'
  write_atomically(paths[0], text.getvalue().encode())
  write_atomically(paths[1], _markdown(lines, failed).encode())
  return paths


def _markdown(lines: Sequence[Line], failed: Mapping[str, str]) -> str:
  header, rows = _text(lines)
  table = [header, ['---'] * len(header), *rows]
  text = '\n'.join(f'| {" | ".join(row)} |' for row in table) + '\n'
  if failed:
    text += '\nFailed:\n\n' + ''.join(f'- `{name}`: {line}\n' for name, line in failed.items())
  return text


def _text(lines: Sequence[Line]) -> tuple[list[str], list[list[str]]]:
  """Column names, and rows: varying settings, scores as mean ± std, number of seeds."""
  names = list(dict.fromkeys(name for line in lines for name in line.scores))
  axes = list(lines[0].label) if lines else []
  rows = []
  for line in lines:
    label = [str(value) for value in line.label.values()]
    rows.append([*label, *(_cell(line.scores.get(n)) for n in names), str(line.seeds)])
  return [*axes, *names, 'seeds'], rows


def _cell(value: MeanStd | None) -> str:
  if value is None:
    return '-'
  return f'{value.mean:.1f}' if value.n == 1 else f'{value.mean:.1f} ± {value.std:.1f}'
