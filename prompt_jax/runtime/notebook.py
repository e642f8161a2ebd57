"""Where progress bars can be drawn, and how they tell the end."""

import datetime
import importlib.util

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
