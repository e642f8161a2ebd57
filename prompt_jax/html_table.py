"""Tables of results as HTML, as a notebook shows them."""

import html
from collections.abc import Mapping, Sequence


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
