"""What a run trains and minimises: its value and gradient on a batch.

One list of patterns is the only definition of trainable. What trains is split off as data before
`jax.grad`, so gradients, optimizer state, checkpoints and the printed count all follow from it, and
nothing is computed or stored for the frozen rest.

Letters: B batch, U target tokens, V vocabulary, M microbatches.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct, traverse_util

from prompt_jax.batch import Batch
from prompt_jax.errors import UserError
from prompt_jax.injections import random_streams
from prompt_jax.stacking import parts_for_caches
from prompt_jax.training.losses import Loss, count_examples, loss_and_sums, normalized_weights

Tree = dict[str, Any]

PROMPT_ONLY = ('prompt/.*',)


def split(params: Tree, patterns: Sequence[str] = PROMPT_ONLY) -> tuple[Tree, Tree]:
  """Splits a tree into what trains and what does not.

  Args:
    params: nested dicts of arrays.
    patterns: regular expressions; a leaf trains if one of them matches its whole path
      "backbone/encoder/encoder_norm/scale". ("prompt/.*",) is prompt tuning, (".*",) everything.

  Returns:
    (trainable, frozen), nested dicts without empty branches; `merge` puts them together again.

  Raises:
    UserError: a pattern matches no path, or is no regular expression.
  """
  flat = traverse_util.flatten_dict(params, sep='/')
  trains = matching(flat, patterns)
  trainable = {path: leaf for path, leaf in flat.items() if path in trains}
  frozen = {path: leaf for path, leaf in flat.items() if path not in trains}
  return (
    traverse_util.unflatten_dict(trainable, sep='/'),
    traverse_util.unflatten_dict(frozen, sep='/'),
  )


def matching(paths: Sequence[str] | Tree, patterns: Sequence[str]) -> dict[str, str]:
  """The first pattern that matches each path, for the paths that one does.

  Raises:
    UserError: a pattern matches no path at all, or is no regular expression.
  """
  if isinstance(patterns, str):
    raise UserError(f'Patterns are a list of regular expressions; got the string {patterns!r}.')
  found: dict[str, str] = {}
  for pattern in patterns:
    try:
      hits = [path for path in paths if re.fullmatch(pattern, path)]
    except re.error as e:
      raise UserError(f'Pattern {pattern!r} is no regular expression: {e}.') from None
    if not hits:
      known = '\n  '.join(sorted(paths)) or 'none'
      raise UserError(
        f'Pattern {pattern!r} matches the whole of no parameter path. Paths:\n  {known}'
      )
    for path in hits:
      found.setdefault(path, pattern)
  return found


def merge(trainable: Tree, frozen: Tree) -> Tree:
  """The tree that `split` took apart.

  Raises:
    ValueError: a path is in both.
  """
  first = traverse_util.flatten_dict(trainable, sep='/')
  second = traverse_util.flatten_dict(frozen, sep='/')
  both = sorted(first.keys() & second.keys())
  if both:
    raise ValueError(f'These paths are both trainable and frozen: {", ".join(both)}')
  return traverse_util.unflatten_dict({**second, **first}, sep='/')


def count(tree: Any) -> int:
  """Number of values in all leaves of a tree."""
  return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(tree))


Array = jax.Array
Metrics = dict[str, Array]
# (variables, batch, rng) -> (loss float32[], metrics float32[] by name).
Function = Callable[[Tree, Batch, Array], tuple[Array, Metrics]]


@struct.dataclass
class Rows:
  """A batch, or one microbatch of it.

  Attributes:
    batch: the rows.
    weights: float32[B, U] loss weights, divided by the normaliser of the whole batch.
    microbatches: M, into which the batch is cut; static.
  """

  batch: Batch
  weights: Array
  microbatches: int = struct.field(pytree_node=False)


class Objective(Protocol):
  """A scalar of the model's variables and a batch, which an `optim.Update` makes smaller.

  It is a pure function and a hashable value: prompts with equal objectives are computed together.
  A batch is computed as M microbatches, whose losses and metrics are added: what is divided by the
  size of the batch is therefore divided in `prepare`, which sees it whole. `CrossEntropy` is what a
  run has by default; `Averaged` makes one of any function `(variables, batch, rng)`.
  """

  def prepare(self, batch: Batch, microbatches: int) -> Any:
    """A batch as `__call__` takes it: a tree of arrays [B, ...], of which each gets B / M rows."""
    ...

  def __call__(self, variables: Tree, rows: Any, rng: Array) -> tuple[Array, Metrics]:
    """The loss and metrics of some rows, all of them float32[] sums.

    Args:
      variables: {"params": {"backbone": ..., "prompt": ...}, "constants": {"prompt": ...}}.
      rows: a part of what `prepare` returned.
      rng: a key of this step and microbatch.
    """
    ...

  def metrics(self, sums: Metrics) -> Metrics:
    """The metrics of a batch from the sums over its microbatches, "loss" among them."""
    ...


@dataclasses.dataclass(frozen=True)
class CrossEntropy:
  """Cross entropy of the targets, with z-loss, label smoothing and the model's auxiliary loss.

  The loss and gradient of microbatches add up to those of the batch, whatever the normalisation,
  and so do auxiliary losses of tokens; one of a batch is averaged over them.

  Attributes:
    model: called as `model.apply(variables, batch, deterministic=..., train=True)` with the random
      stream "prompt", and "dropout" if there is dropout; it returns (logits float32[B, U, V],
      aux_loss float32[], or float32[B, U] of each target token).
    loss: see `losses.Loss`.
    dropout: whether the backbone drops out; the prompt method draws from a stream of its own.
  """

  model: nn.Module
  loss: Loss = dataclasses.field(default_factory=Loss)
  dropout: bool = False

  def prepare(self, batch: Batch, microbatches: int) -> Rows:
    """Divides the loss weights of the whole batch by their normaliser."""
    weights = normalized_weights(
      batch.decoder_loss_weights, self.loss.normalization, batch.decoder_segment_ids
    )
    return Rows(batch, weights, microbatches)

  def __call__(self, variables: Tree, rows: Rows, rng: Array) -> tuple[Array, Metrics]:
    """Loss, and the sums of `losses.loss_and_sums` with "aux_loss"."""
    batch = rows.batch
    logits, aux = self.model.apply(
      variables,
      batch,
      deterministic=not self.dropout,
      train=True,
      rngs=random_streams(rng, self.dropout),
    )
    with jax.named_scope('loss'):
      value, sums = loss_and_sums(
        logits, batch.decoder_target_tokens, batch.decoder_loss_weights, rows.weights, self.loss
      )
    aux = jnp.asarray(aux, jnp.float32)
    aux = jnp.sum(rows.weights * aux) if aux.ndim else aux / rows.microbatches
    return value + aux, {**sums, 'aux_loss': aux}

  def metrics(self, sums: Metrics) -> Metrics:
    """Means over target tokens: "cross_entropy", "z_loss" and "token_accuracy"; and "loss" (what is
    minimised), "tokens" (their number) and "aux_loss"."""
    tokens = jnp.maximum(sums['tokens'], 1e-9)
    return {
      'loss': sums['loss'],
      'cross_entropy': sums['cross_entropy'] / tokens,
      'z_loss': sums['z_loss'] / tokens,
      'token_accuracy': sums['correct'] / tokens,
      'tokens': sums['tokens'],
      'aux_loss': sums['aux_loss'],
    }


@dataclasses.dataclass(frozen=True)
class Averaged:
  """A plain function as an objective: its losses and metrics are averaged over microbatches.

  Attributes:
    function: `(variables, batch, rng) -> (loss, metrics)` of some rows, each a float32[] mean.
  """

  function: Function

  def prepare(self, batch: Batch, microbatches: int) -> Rows:
    return Rows(batch, batch.decoder_loss_weights, microbatches)

  def __call__(self, variables: Tree, rows: Rows, rng: Array) -> tuple[Array, Metrics]:
    loss, metrics = self.function(variables, rows.batch, rng)
    return loss / rows.microbatches, {k: v / rows.microbatches for k, v in metrics.items()}

  def metrics(self, sums: Metrics) -> Metrics:
    return sums


class BatchLoss:
  """An objective on one batch, as a function of the leaves that train."""

  def __init__(
    self,
    objective: Objective,
    frozen: Tree,
    constants: Tree,
    batch: Batch,
    microbatches: int | None = None,
  ):
    """
    Args:
      objective: what is computed.
      frozen: the other side of `split`.
      constants: non-trainable state of the prompt method, collection "constants".
      batch: B rows.
      microbatches: M equal parts of the batch are computed one after the other, so that the
        activations of one are held at a time; None for `parts_for_caches`.

    Raises:
      UserError: the rows do not divide into `microbatches`.
    """
    rows = batch.encoder_input_tokens.shape
    self._microbatches = parts_for_caches(*rows) if microbatches is None else microbatches
    if rows[0] % self._microbatches:
      raise UserError(
        f'A batch of {rows[0]} rows does not divide into {self._microbatches} microbatches. '
        'Give a number of microbatches that divides the batch size.'
      )
    self._objective, self._frozen, self._constants = objective, frozen, constants
    self._rows = objective.prepare(batch, self._microbatches)
    self._examples = count_examples(batch.decoder_loss_weights, batch.decoder_segment_ids)

  def __call__(self, trainable: Tree, rng: Array) -> tuple[Array, Metrics]:
    """The loss and the metrics of the batch; nothing is kept for a gradient."""
    metrics = self._metrics(self._sum(lambda *part: self._part(trainable, *part)[1], rng))
    return metrics['loss'], metrics

  def gradient(self, trainable: Tree, rng: Array) -> tuple[Tree, Metrics]:
    """The gradient with respect to `trainable`, accumulated over microbatches, and the metrics."""
    part_gradient = jax.grad(self._part, has_aux=True)
    gradient, sums = self._sum(lambda *part: part_gradient(trainable, *part), rng)
    return gradient, self._metrics(sums)

  def _part(self, trainable: Tree, rows: Any, rng: Array) -> tuple[Array, Metrics]:
    variables = {'params': merge(trainable, self._frozen), 'constants': self._constants}
    loss, metrics = self._objective(variables, rows, rng)
    return loss, {**metrics, 'loss': loss}

  def _metrics(self, sums: Metrics) -> Metrics:
    return {**self._objective.metrics(sums), 'examples': self._examples}

  def _sum(self, of_part: Callable[[Any, Array], Any], rng: Array) -> Any:
    """The sum of a tree over the microbatches, by `lax.scan`."""
    count = self._microbatches
    if count == 1:
      return of_part(self._rows, rng)

    def cut(x: Array) -> Array:
      # Part i takes rows i, i + M, ...: where rows are spread over devices in order, each part
      # still has rows on every device.
      return x.reshape(x.shape[0] // count, count, *x.shape[1:]).swapaxes(0, 1)

    def body(total: Any, part: Any) -> tuple[Any, None]:
      i, rows = part
      return jax.tree.map(jnp.add, total, of_part(rows, jax.random.fold_in(rng, i))), None

    parts = (jnp.arange(count), jax.tree.map(cut, self._rows))
    first = jax.tree.map(lambda x: x[0], parts[1])
    shapes = jax.eval_shape(lambda rows: of_part(rows, rng), first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(body, zeros, parts)[0]
