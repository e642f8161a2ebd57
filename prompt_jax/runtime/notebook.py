"""What a notebook shows: progress bars, where they can be drawn, and tables of results as HTML."""

import datetime
import html
import importlib.util
from collections.abc import Mapping, Sequence

from rich.console import Console


def draws_bars(console: Console) -> bool:
  """Whether a bar can be redrawn there: on a terminal, or in a notebook that has ipywidgets."""
  return console.is_terminal or (
    console.is_jupyter and importlib.util.find_spec('ipywidgets') is not None
  )


def ends(left: float | None) -> str:
  """The time of day that is `left` seconds from now, with the day if that is another."""
  if left is None:
    return 'ends -'
  now = datetime.datetime.now()
  end = now + datetime.timedelta(seconds=left)
  return f'ends {end:%H:%M:%S}' if end.date() == now.date() else f'ends {end:%b %d %H:%M}'


def score_table(systems: Sequence[tuple[str, Mapping[str, float]]], title: str = '') -> str:
  """One row a system, one column a score in percent; "-" where a system has none.

  Args:
    systems: (name, score name -> value).
    title: above the table.
  """
  names = list(dict.fromkeys(name for _, scores in systems for name in scores))
  rows = [[name, *(_number(s.get(n)) for n in names)] for name, s in systems]
  return table(['system', *names], rows, title)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = '') -> str:
  """An HTML table; the first column is aligned left, the others right."""
  caption = f'<caption style="text-align:left"><b>{html.escape(title)}</b></caption>'
  head = ''.join(_cell('th', name, i) for i, name in enumerate(columns))
  body = ''.join(
    f'<tr>{"".join(_cell("td", value, i) for i, value in enumerate(row))}</tr>' for row in rows
  )
  return (
    f'<table>{caption if title else ""}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
  )


def _cell(tag: str, value: object, column: int) -> str:
  side = 'right' if column else 'left'
  return f'<{tag} style="text-align:{side}">{html.escape(str(value))}</{tag}>'


def _number(value: float | None) -> str:
  return '-' if value is None else f'{value:.1f}'
