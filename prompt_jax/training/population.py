"""One step of several prompts on one frozen model: many prompts at once.

Letters: K prompts, B batch.

Prompts whose arrays have the same shapes are stacked along a leading K axis, and the gradient of
one prompt is mapped over it: the frozen weights have no such axis, so each of their products runs
once over the rows of all prompts. Prompts of other shapes (another length, another method) are
other stacks of the same program, each as wide as it is: nothing is padded and masked, and whatever
a method injects takes part. Updates are each prompt's own, with an optimiser of its own.

On a mesh the prompts of a stack are cut over the devices that the layout gives to a batch, as far
as these divide them, and the rows of each prompt over the others: see `Placement.vmap`.

So what a prompt becomes is what a run of its own makes of it, up to rounding.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import optax
from flax import linen as nn

from prompt_jax.batch import Batch
from prompt_jax.sharding.placement import Placement
from prompt_jax.stacking import alike, mapped, suited
from prompt_jax.training.losses import Loss
from prompt_jax.training.partition import Tree
from prompt_jax.training.step import Metrics, TrainState, loss_gradient, updated


def population_step(
  states: Sequence[TrainState],
  frozen: Tree,
  own: Sequence[Tree],
  constants: Sequence[Tree],
  batches: Sequence[Batch],
  *,
  models: Sequence[nn.Module],
  txs: Sequence[optax.GradientTransformation],
  loss: Loss,
  microbatches: int | None = None,
  dropout: bool = False,
  at_once: int | None = None,
  placement: Placement | None = None,
) -> tuple[tuple[TrainState, ...], tuple[Metrics, ...]]:
  """`step.train_step` of each of K prompts; other arguments are those of one.

  Args:
    states: K states.
    frozen: what no prompt trains and all share: the backbone.
    own: K frozen trees that are each prompt's own (the part of it that its pattern leaves out).
    constants: K collections "constants".
    batches: K batches of B rows.
    models: K models; those that compute the same should be equal, to be stacked.
    txs: K optimisers.
    loss: what each prompt minimises over its own batch; nothing is averaged over prompts.
    microbatches: see `train_step`.
    dropout: see `train_step`; each prompt draws from the key in its own state.
    at_once: most prompts of one stack that run together; stacks of more are cut into as many parts,
      one after the other, so that the memory for activations does not grow with K. None for
      `together.suited`; on a mesh, for all.
    placement: the mesh over which `frozen` lies, by whose `within` this is traced; None for one
      device.

  Returns:
    K states and K dicts of metrics.
  """
  new: list[Any] = [None] * len(states)
  # The optimisers' states stay out of the stacks: they may differ in kind.
  read = [
    (dataclasses.replace(state, opt_state=()), *rest)
    for state, *rest in zip(states, own, constants, batches, strict=True)
  ]
  for members in alike(read, models):
    model = models[members[0]]

    def gradient(args, model=model):
      state, own, constants, batch = args
      return loss_gradient(
        state,
        {**frozen, **own},
        constants,
        batch,
        model=model,
        loss=loss,
        microbatches=microbatches,
        dropout=dropout,
      )

    parts = at_once
    if parts is None and placement is None:
      parts = suited(len(members), *batches[members[0]].encoder_input_tokens.shape)
    vmap = placement.vmap if placement else jax.vmap
    found = mapped(gradient, [read[k] for k in members], parts, vmap)
    for k, (g, metrics) in zip(members, found, strict=True):
      state, norm = updated(states[k], g, txs[k])
      new[k] = state, {**metrics, 'update_norm': norm}
  done, metrics = zip(*new, strict=True)
  return done, metrics
