"""What the step of a run is called with, and what it changes."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from prompt_jax.runtime import processes
from prompt_jax.training.ahead import Call
from prompt_jax.training.members import Point, Run
from prompt_jax.training.streams import Streams


def foreseen(run: Run, point: Point, streams: Streams, put: Callable[[Any], Any]) -> list[Call]:
  """The calls of a step that are to be compiled: one for each shape of the batches to come."""
  if processes.count() > 1:  # they would not begin in the same order
    return []
  batches = streams.upcoming_shapes(run.settings.steps - point.step)
  return [_call(run, point, put(batch)) for batch in batches]


def _call(run: Run, point: Point, batches: Sequence[Any]) -> Call:
  """Of every member that still trains."""
  active = point.active
  chosen = [point.standings[k] for k in active]
  return Call(
    (
      [s.state for s in chosen],
      run.frozen,
      [run.own[k] for k in active],
      [s.constants for s in chosen],
      [batches[k] for k in active],
    ),
    {
      'objectives': tuple(run.members[k].objective for k in active),
      'updates': tuple(run.members[k].update for k in active),
    },
  )


def update(
  run: Run, point: Point, step: Callable[..., Any], batches: Sequence[Any]
) -> dict[int, dict[str, jax.Array]]:
  """One update of every member that still trains; their metrics."""
  active, call = point.active, _call(run, point, batches)
  with jax.transfer_guard('disallow'):
    states, metrics = step(*call.args, **call.static)
  for k, state in zip(active, states, strict=True):
    point.standings[k].state = state
  return dict(zip(active, metrics, strict=True))
