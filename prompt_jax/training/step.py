"""The training step: a pure function of one prompt or of several on one frozen model.

Letters: K prompts, B batch.

It is what a run, a plan, a sweep and the benchmarks compile. Prompts whose arrays have the same
shapes are stacked along a leading K axis, and the gradient of one prompt is mapped over it: the
frozen weights have no such axis, so each of their products runs once over the rows of all prompts.
Prompts of other shapes (another length, another method) are other stacks of the same program, each
as wide as it is: nothing is padded and masked. Updates are each prompt's own. So what a prompt
becomes is what a run of its own makes of it, up to rounding.

On a mesh the prompts of a stack are cut over the devices that the layout gives to a batch, as far
as these divide them, and the rows of each prompt over the others: see `Placement.vmap`.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from prompt_jax.batch import Batch
from prompt_jax.sharding.placement import Placement
from prompt_jax.stacking import group_by_structure, map_stacked, prompts_at_once
from prompt_jax.training.objective import BatchLoss, Metrics, Objective, Tree
from prompt_jax.training.optim import Estimate, Update

Array = jax.Array


@struct.dataclass
class TrainState:
  """Everything that a step changes, and the key it draws from.

  Attributes:
    step: int32[] number of steps done.
    trainable: float32 leaves, the trainable side of `objective.split`.
    opt_state: the update's.
    rng: uint32[2] key data, the same during a run; step n draws from fold_in(rng, n).
  """

  step: Array
  trainable: Tree
  opt_state: Any
  rng: Array


def create_state(trainable: Tree, update: Update, seed: int) -> TrainState:
  """The state before the first step; trainable leaves become float32."""
  trainable = jax.tree.map(lambda x: jnp.array(x, jnp.float32), trainable)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    trainable=trainable,
    opt_state=update.init(trainable),
    rng=jax.random.key_data(jax.random.key(seed, impl='threefry2x32')),
  )


def train_step(
  states: Sequence[TrainState],
  frozen: Tree,
  own: Sequence[Tree],
  constants: Sequence[Tree],
  batches: Sequence[Batch],
  *,
  objectives: Sequence[Objective],
  updates: Sequence[Update],
  microbatches: int | None = None,
  at_once: int | None = None,
  placement: Placement | None = None,
) -> tuple[list[TrainState], list[Metrics]]:
  """One update of each of K prompts; K is 1 in an ordinary run.

  Args:
    states: K states before the step.
    frozen: what no prompt trains and all share: the backbone.
    own: K frozen trees that are each prompt's own (the part of it that its pattern leaves out).
    constants: K collections "constants".
    batches: K batches of B rows.
    objectives: K objectives; those that compute the same should be equal, to be stacked.
    updates: K updates.
    microbatches: parts of each prompt's batch, see `objective.BatchLoss`.
    at_once: most prompts of one stack that run together; stacks of more are cut into as many parts,
      one after the other, so that the memory for activations does not grow with K. None for
      `stacking.prompts_at_once`; on a mesh, for all.
    placement: the mesh over which `frozen` lies, by whose `with_mesh` this is traced; None for one
      device.

  Returns:
    K states and K dicts of float32[] metrics: those of the objective, of its batch "examples" (how
    many), of the update "update_norm" (of all trainable leaves) and whatever it estimated by
    ("grad_norm").

  Raises:
    UserError: the rows do not divide into `microbatches`.
  """
  new = list(states)
  metrics: list[Metrics] = [{} for _ in states]
  read = [
    state if update.reads_state else dataclasses.replace(state, opt_state=())
    for state, update in zip(states, updates, strict=True)
  ]
  prompts = list(zip(read, own, constants, batches, strict=True))
  computed = [(o, u.estimate) for o, u in zip(objectives, updates, strict=True)]
  for stack in group_by_structure(prompts, computed):
    objective, estimate = computed[stack[0]]

    def estimate_one(prompt: Any, objective=objective, estimate=estimate) -> tuple[Any, Metrics]:
      state, own, constants, batch = prompt
      return estimate_update(
        state, {**frozen, **own}, constants, batch, objective, estimate, microbatches
      )

    parts = at_once
    if parts is None and placement is None:
      parts = prompts_at_once(len(stack), *batches[stack[0]].encoder_input_tokens.shape)
    vmap = placement.vmap if placement else jax.vmap
    found = map_stacked(estimate_one, [prompts[k] for k in stack], parts, vmap)
    for k, (estimated, of_prompt) in zip(stack, found, strict=True):
      new[k], norm = apply_update(states[k], estimated, updates[k])
      metrics[k] = {**of_prompt, 'update_norm': norm}
  return new, metrics


def estimate_update(
  state: TrainState,
  frozen: Tree,
  constants: Tree,
  batch: Batch,
  objective: Objective,
  estimate: Estimate,
  microbatches: int | None = None,
) -> tuple[Any, Metrics]:
  """The first half of a step of one prompt: what the second is made from, such as the gradient."""
  loss = BatchLoss(objective, frozen, constants, batch, microbatches)
  key = jax.random.fold_in(jax.random.wrap_key_data(state.rng, impl='threefry2x32'), state.step)
  return estimate(loss, state.trainable, state.opt_state, key)


def apply_update(state: TrainState, estimated: Any, update: Update) -> tuple[TrainState, Array]:
  """The second half: the state after one update, and the norm of the update."""
  with jax.named_scope('optimizer'):
    changes, opt_state = update.step(estimated, state.opt_state, state.trainable)
  new = dataclasses.replace(
    state,
    step=state.step + 1,
    trainable=optax.apply_updates(state.trainable, changes),
    opt_state=opt_state,
  )
  return new, optax.tree.norm(changes)


def jit_train_step(
  *,
  microbatches: int | None = None,
  at_once: int | None = None,
  placement: Placement | None = None,
) -> Any:
  """`train_step` as every caller compiles it: `objectives` and `updates` are static arguments.

  Only the train states are donated. On a mesh, what it returns is whole on every device.
  """
  step = functools.partial(
    train_step, microbatches=microbatches, at_once=at_once, placement=placement
  )
  options: dict[str, Any] = {'donate_argnums': 0, 'static_argnames': ('objectives', 'updates')}
  if placement is None:
    return jax.jit(step, **options)
  return jax.jit(placement.with_mesh(step), out_shardings=placement.replicated, **options)


class StepArguments(NamedTuple):
  """What a jitted step is called with: arrays, and static arguments by name."""

  arrays: tuple[Any, ...]
  static: dict[str, Any]


class CompiledStep:
  """A jitted step, of which some programs are compiled ahead of time, each in a thread of its own.

  A call of other shapes is compiled when it comes. Use it as a context manager, which drops
  compilations that have not begun.
  """

  def __init__(self, step: Any, upcoming: Sequence[StepArguments] = ()):
    """Begins to compile for some arguments, in their order; the step is not run.

    They are traced here: settings of JAX that hold for a thread (`jax.default_matmul_precision`)
    would not reach another.
    """
    self._step = step
    self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix='compile')
    self._programs: dict[Any, Future] = {}
    for arguments in upcoming:
      lowered = step.lower(*arguments.arrays, **arguments.static)
      self._programs[_program_key(arguments)] = self._pool.submit(lowered.compile)

  def __enter__(self) -> 'CompiledStep':
    return self

  def __exit__(self, *_) -> None:
    self._pool.shutdown(wait=False, cancel_futures=True)

  def __call__(self, arguments: StepArguments) -> Any:
    """What the step returns; waits for its program if that is still being compiled."""
    program = self._programs.get(_program_key(arguments))
    if program is None:
      return self._step(*arguments.arrays, **arguments.static)
    return program.result()(*arguments.arrays)


def _program_key(arguments: StepArguments) -> Any:
  leaves, structure = jax.tree.flatten(arguments.arrays)
  return structure, tuple(map(np.shape, leaves)), tuple(sorted(arguments.static.items()))
