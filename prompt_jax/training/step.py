"""One training step: a free, pure function.

Letters: B batch, U target tokens, M microbatches.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct

from prompt_jax.batch import Batch
from prompt_jax.errors import UserError
from prompt_jax.injections import random_streams
from prompt_jax.stacking import parts_for_caches
from prompt_jax.training.losses import (
  Loss,
  count_examples,
  loss_and_sums,
  normalized_weights,
)
from prompt_jax.training.partition import Tree, merge

Array = jax.Array
Metrics = dict[str, Array]


@struct.dataclass
class TrainState:
  """Everything that a step changes, and the key it draws from.

  Attributes:
    step: int32[] number of steps done.
    trainable: float32 leaves, the trainable side of `partition.split`.
    opt_state: the optimiser's.
    rng: uint32[2] key data, the same during a run; step n draws from fold_in(rng, n).
  """

  step: Array
  trainable: Tree
  opt_state: Any
  rng: Array


def create_state(trainable: Tree, tx: optax.GradientTransformation, seed: int) -> TrainState:
  """The state before the first step; trainable leaves become float32."""
  trainable = jax.tree.map(lambda x: jnp.array(x, jnp.float32), trainable)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    trainable=trainable,
    opt_state=tx.init(trainable),
    rng=jax.random.key_data(jax.random.key(seed, impl='threefry2x32')),
  )


def train_step(
  state: TrainState,
  frozen: Tree,
  constants: Tree,
  batch: Batch,
  *,
  model: nn.Module,
  tx: optax.GradientTransformation,
  loss: Loss,
  microbatches: int | None = None,
  dropout: bool = False,
) -> tuple[TrainState, Metrics]:
  """Gradient of the loss with respect to the trainable leaves, and one update of them.

  Args:
    state: before the step.
    frozen: the other side of `partition.split`.
    constants: non-trainable state of the prompt method, collection "constants".
    batch: B rows.
    model: called as `model.apply(variables, batch, deterministic=..., train=True)` with the random
      stream "prompt", and "dropout" if there is dropout; it returns (logits float32[B, U, V],
      aux_loss float32[]).
    tx: the optimiser.
    loss: see `losses.Loss`. The auxiliary loss of the model is added to it.
    microbatches: M equal parts of the batch are run one after the other, so only one part's
      activations are held at a time; None for `parts_for_caches`. The sum of gradients is that of
      the whole batch, whatever the loss normalisation (the auxiliary loss is averaged over the
      parts).
    dropout: whether the backbone drops out; the prompt method draws from a stream of its own.

  Returns:
    The state after the step and float32[] metrics: "loss" (what is minimised), "cross_entropy",
    "z_loss" and "token_accuracy" (means over target tokens), "tokens" and "examples" (their
    numbers), "aux_loss", "grad_norm" and "update_norm" (of all trainable leaves).

  Raises:
    UserError: the rows do not divide into `microbatches`.
  """
  gradient, metrics = loss_gradient(
    state,
    frozen,
    constants,
    batch,
    model=model,
    loss=loss,
    microbatches=microbatches,
    dropout=dropout,
  )
  new, norm = updated(state, gradient, tx)
  return new, {**metrics, 'update_norm': norm}


def loss_gradient(
  state: TrainState,
  frozen: Tree,
  constants: Tree,
  batch: Batch,
  *,
  model: nn.Module,
  loss: Loss,
  microbatches: int | None = None,
  dropout: bool = False,
) -> tuple[Tree, Metrics]:
  """The first half of `train_step`: reads all of the state but the optimiser's.

  Returns:
    The gradient, shaped like `state.trainable`, and the metrics but for "update_norm".
  """
  if microbatches is None:
    microbatches = parts_for_caches(*batch.encoder_input_tokens.shape)
  key = jax.random.fold_in(jax.random.wrap_key_data(state.rng, impl='threefry2x32'), state.step)
  scaled = normalized_weights(
    batch.decoder_loss_weights, loss.normalization, batch.decoder_segment_ids
  )

  def part_loss(trainable, part, scaled, key):
    logits, aux = model.apply(
      {'params': merge(trainable, frozen), 'constants': constants},
      part,
      deterministic=not dropout,
      train=True,
      rngs=random_streams(key, dropout),
    )
    with jax.named_scope('loss'):
      value, sums = loss_and_sums(
        logits, part.decoder_target_tokens, part.decoder_loss_weights, scaled, loss
      )
    aux = jnp.asarray(aux, jnp.float32) / microbatches
    return value + aux, {**sums, 'aux_loss': aux, 'loss': value + aux}

  gradient_of = jax.grad(part_loss, has_aux=True)
  if microbatches == 1:
    gradient, sums = gradient_of(state.trainable, batch, scaled, key)
  else:
    gradient, sums = _accumulate(gradient_of, state.trainable, batch, scaled, key, microbatches)
  examples = count_examples(batch.decoder_loss_weights, batch.decoder_segment_ids)
  return gradient, {**_metrics(sums, gradient), 'examples': examples}


def updated(
  state: TrainState, gradient: Tree, tx: optax.GradientTransformation
) -> tuple[TrainState, Array]:
  """The second half of `train_step`: the state after one update, and the norm of the update."""
  with jax.named_scope('optimizer'):
    updates, opt_state = tx.update(gradient, state.opt_state, state.trainable)
  new = dataclasses.replace(
    state,
    step=state.step + 1,
    trainable=optax.apply_updates(state.trainable, updates),
    opt_state=opt_state,
  )
  return new, optax.tree.norm(updates)


def _accumulate(gradient_of, trainable, batch, scaled, key, microbatches: int):
  """Sums gradients and metrics over parts of the batch, by `lax.scan`."""
  rows = scaled.shape[0]
  if rows % microbatches:
    raise UserError(
      f'A batch of {rows} rows does not divide into {microbatches} microbatches. '
      'Give a number of microbatches that divides the batch size.'
    )

  def cut(x):
    # Part i takes rows i, i + M, ...: where rows are spread over devices in order, each part
    # still has rows on every device.
    return x.reshape(rows // microbatches, microbatches, *x.shape[1:]).swapaxes(0, 1)

  def body(total, part):
    i, batch, scaled = part
    new = gradient_of(trainable, batch, scaled, jax.random.fold_in(key, i))
    return jax.tree.map(jnp.add, total, new), None

  parts = (jnp.arange(microbatches), *jax.tree.map(cut, (batch, scaled)))
  first = jax.tree.map(lambda x: x[0], parts)
  shapes = jax.eval_shape(lambda p: gradient_of(trainable, p[1], p[2], key), first)
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  total, _ = jax.lax.scan(body, zeros, parts)
  return total


def _metrics(sums: Metrics, gradient: Tree) -> Metrics:
  tokens = jnp.maximum(sums['tokens'], 1e-9)
  return {
    'loss': sums['loss'],
    'cross_entropy': sums['cross_entropy'] / tokens,
    'z_loss': sums['z_loss'] / tokens,
    'token_accuracy': sums['correct'] / tokens,
    'tokens': sums['tokens'],
    'aux_loss': sums['aux_loss'],
    'grad_norm': optax.tree.norm(gradient),
  }
