"""A run's state: begun, gone on with, and saved."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from prompt_jax.checkpoints.prompt_file import check_model, load_prompt
from prompt_jax.checkpoints.run_state import from_arrays, to_arrays
from prompt_jax.errors import UserError
from prompt_jax.training.members import Ended, Member, Point, Run, Standing
from prompt_jax.training.output import warm_start
from prompt_jax.training.partition import Tree
from prompt_jax.training.selection import Selection
from prompt_jax.training.streams import Streams


def restore(run: Run, begun: list[Standing], streams: Streams) -> Point:
  """Resume, else warm start, else fresh."""
  steps = run.states.steps()
  if steps and steps[-1] > run.settings.steps:
    raise UserError(
      f'The run in {str(run.folder)!r} has done {steps[-1]} steps, more than {run.settings.steps}. '
      'Give as many or more, or another output folder.'
    )
  if steps:
    point = _resume(run, steps[-1], begun)
    streams.restore(point.position)
    for output in run.outputs:
      output.resume()
    run.console.print(f'Going on after step {point.step}', highlight=False)
    return point
  for m, standing, output in zip(run.members, begun, run.outputs, strict=True):
    if m.warm_start is not None:
      _warm(m, standing)
    output.begin(standing.state.trainable)
  return Point(begun, streams.position, step=0)


def _warm(member: Member, standing: Standing) -> None:
  """Puts the prompt of a file in place of the fresh one."""
  path, facts = str(member.warm_start), member.metadata
  check_model(
    load_prompt(path),
    base_model=facts['base_model'],
    fingerprint=facts['fingerprint'],
    width=facts['width'],
    path=path,
  )
  trainable = warm_start(path, standing.state.trainable)
  trainable = jax.tree.map(lambda x: jnp.array(x, jnp.float32), trainable)
  standing.state = dataclasses.replace(standing.state, trainable=trainable)


def _resume(run: Run, step: int, begun: list[Standing]) -> Point:
  """The saved state of a step, if it is of this model and this set-up."""
  arrays, info = run.states.restore(step)
  saved = info['members']
  for what, before, given in (
    ('model fingerprint', info['fingerprint'], run.fingerprint),
    ('prompts', ', '.join(saved), ', '.join(m.key for m in run.members)),
    *((f'seed of {m.key}' if m.name else 'seed', saved.get(m.key, {}).get('seed'), m.seed)
      for m in run.members),
  ):  # fmt: skip
    if before != given:
      raise UserError(
        f'The run in {str(run.folder)!r} has the {what} {before}, but {given} was given. '
        'Give what it was begun with, or another output folder.'
      )
  tree = from_arrays(_tree(run, begun), arrays, str(run.folder))
  # Copies: a donated array must not share the memory of a NumPy one.
  tree = jax.tree.map(jnp.array, tree)
  standings = []
  for m in run.members:
    facts = saved[m.key]
    ended = Ended(**facts['ended']) if facts['ended'] else None
    standings.append(
      Standing(**tree[m.key], selection=Selection(**facts['selection']), ended=ended)
    )
  return Point(standings, info['position'], step)


def _tree(run: Run, standings: Sequence[Standing]) -> Tree:
  """The arrays of a saved state."""
  pairs = zip(run.members, standings, strict=True)
  return {m.key: {'state': s.state, 'constants': s.constants} for m, s in pairs}


def save(run: Run, point: Point, value: float | None) -> None:
  """Begins to save the run state of this step."""
  info = {
    'fingerprint': run.fingerprint,
    'position': point.position,
    'members': {
      m.key: {
        'seed': m.seed,
        'selection': dataclasses.asdict(s.selection),
        'ended': s.ended and dataclasses.asdict(s.ended),
      }
      for m, s in zip(run.members, point.standings, strict=True)
    },
  }
  run.states.save(point.step, to_arrays(_tree(run, point.standings)), info, value)
