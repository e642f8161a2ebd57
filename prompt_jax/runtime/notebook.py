"""Where progress bars can be drawn."""

import importlib.util

from rich.console import Console


def draws_bars(console: Console) -> bool:
  """Whether a bar can be redrawn there: on a terminal, or in a notebook that has ipywidgets."""
  return console.is_terminal or (
    console.is_jupyter and importlib.util.find_spec('ipywidgets') is not None
  )
