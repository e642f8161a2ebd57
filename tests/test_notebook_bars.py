"""Progress bars in notebooks: drawn where ipywidgets is installed, else lines."""

import importlib.util
import io

import pytest
from rich.console import Console

from prompt_jax.runtime.processes import draws_bars
from prompt_jax.training.monitor import Progress


@pytest.mark.parametrize(
  ('options', 'widgets', 'drawn'),
  [
    ({'force_terminal': True}, False, True),
    ({'force_terminal': False}, True, False),
    ({'force_jupyter': True}, True, True),
    ({'force_jupyter': True}, False, False),
  ],
)
def test_bars_are_drawn_where_they_can_be(options, widgets, drawn, monkeypatch):
  find = importlib.util.find_spec
  found = lambda name, *a: (object() if widgets else None) if name == 'ipywidgets' else find(name)
  monkeypatch.setattr(importlib.util, 'find_spec', found)
  assert draws_bars(Console(file=io.StringIO(), **options)) is drawn


def test_without_a_bar_a_run_prints_lines():
  shown = io.StringIO()
  with Progress(10, 0, Console(file=shown, force_terminal=False)) as progress:
    progress.begin(0)
    progress.update(5, 1.25, True)
  assert '5/10' in shown.getvalue()
  assert '1.25' in shown.getvalue()
