"""A table as text: for the terminal, as CSV, as Markdown."""

import csv
import io
import math
import re
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from prompt_jax.reports.columns import ReportTable, Value
from prompt_jax.training.records import MeanStd

# Headings of columns; other columns have their names as headings.
TITLES = {'learning_rate': 'learning rate'}
MARKED = re.compile(r'([\\`*|<>\[\]&~#])|(?<![^\W_])_|_(?![^\W_])')


def shown(name: str, value: Value) -> str:
  """Formats a value for people.

  Scores are in percent, to a tenth, "52.8 ± 1.5" over several seeds; losses to a thousandth.
  """
  if value is None:
    return '-'
  if isinstance(value, MeanStd):
    digits = 3 if name.endswith('loss') else 1
    mean = f'{value.mean:.{digits}f}'
    return mean if value.n == 1 else f'{mean} ± {value.std:.{digits}f}'
  if isinstance(value, bool | str):
    return printable(str(value))
  if name == 'seconds':
    return f'{value:,.0f}' if value >= 10 else f'{value:.1f}'
  return f'{value:,}' if isinstance(value, int) else f'{value:g}'


def printable(text: str) -> str:
  """The text with control characters and invalid characters escaped."""
  return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def title(name: str) -> str:
  """The heading of a column."""
  return printable(TITLES.get(name, name))


def numeric(table: ReportTable, name: str) -> bool:
  """Whether a column contains numbers, which are aligned to the right."""
  values = [row[name] for row in table.rows if row[name] is not None]
  return bool(values) and not any(isinstance(v, str) for v in values)


def print_table(
  table: ReportTable, heading: str, console: Console, may_leave: Sequence[str] = ()
) -> list[str]:
  """Prints a table, at its full width if the output is not a terminal.

  Args:
    table: what to print.
    heading: above it.
    console: where.
    may_leave: columns to leave out, in this order, as long as the terminal is too narrow.

  Returns:
    The columns that were left out.
  """
  out: list[str] = []
  drawn = _drawn(table, heading)
  if not console.is_terminal:
    console = Console(file=console.file, width=_width(drawn, console))
  for name in may_leave:
    if _width(drawn, console) <= console.width:
      break
    if name in table.names:
      table = ReportTable(tuple(n for n in table.names if n != name), table.rows)
      drawn, out = _drawn(table, heading), [*out, name]
  console.print(drawn)
  return out


def _drawn(table: ReportTable, heading: str) -> RichTable:
  drawn = RichTable(title=Text(heading), title_justify='left', title_style='bold')
  for name in table.names:
    right = numeric(table, name)
    # Numbers are never wrapped; long folder names are.
    justify: Literal['left', 'right'] = 'right' if right else 'left'
    drawn.add_column(Text(title(name)), justify=justify, overflow='fold', no_wrap=right)
  for row in table.rows:
    drawn.add_row(*(Text(shown(name, row[name])) for name in table.names))
  return drawn


def _width(drawn: RichTable, console: Console) -> int:
  """The width of a table without any wrapping."""
  options = console.options.update(max_width=1_000_000)
  return Measurement.get(console, options, drawn).maximum


def to_csv(table: ReportTable) -> str:
  """One line per row, with unformatted numbers; a score has two columns, mean and deviation."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator='\n')
  scores = {n for n in table.names if any(isinstance(r[n], MeanStd) for r in table.rows)}
  heads = [[n, f'{n} std'] if n in scores else [n] for n in table.names]
  writer.writerow([h for pair in heads for h in pair])
  for row in table.rows:
    writer.writerow([cell for n in table.names for cell in _plain(row[n], n in scores)])
  return out.getvalue()


def _plain(value: Value, score: bool) -> list[str | int | float]:
  if isinstance(value, MeanStd):
    return [value.mean, '' if math.isnan(value.std) else value.std]
  empty: Value = '' if value is None else value
  assert not isinstance(empty, MeanStd)
  assert empty is not None
  return [empty, ''] if score else [empty]


def to_markdown(table: ReportTable) -> str:
  """A table of GitHub's Markdown."""
  rule = ['---:' if numeric(table, n) else '---' for n in table.names]
  lines = [[title(n) for n in table.names], rule]
  lines += [[shown(n, row[n]) for n in table.names] for row in table.rows]
  texts = [[cell if i == 1 else escaped(cell) for cell in line] for i, line in enumerate(lines)]
  return ''.join(f'| {" | ".join(line)} |\n' for line in texts)


def escaped(text: str) -> str:
  """Escapes text so that Markdown shows it unchanged, without columns, links or tags."""
  return MARKED.sub(r'\\\g<0>', printable(text))


def sentence(shared: Sequence[tuple[str, Value]]) -> str:
  """ "Same in all rows: task sst2, steps 600." """
  said = ', '.join(f'{title(name)} {shown(name, value)}' for name, value in shared)
  return f'Same in all rows: {said}.' if said else ''
