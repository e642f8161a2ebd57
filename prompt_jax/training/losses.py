"""Cross entropy of a sequence-to-sequence model, with T5X's z-loss and label smoothing.

Letters: B batch, U target tokens, V vocabulary.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError, unknown

Array = jax.Array
Metrics = dict[str, Array]

NORMALIZATIONS = ('sum', 'tokens', 'all_tokens', 'examples')


@dataclasses.dataclass(frozen=True)
class Loss:
  """The training loss, as data (static under jit).

  Attributes:
    z_loss: factor of log(Z)^2, which keeps the softmax normaliser Z near 1 (T5X: 1e-4).
    label_smoothing: probability taken from the target and spread over the other V - 1 tokens.
    normalization: what the sum over target tokens is divided by; see `normalized_weights`.
  """

  z_loss: float = 1e-4
  label_smoothing: float = 0.0
  normalization: str | float = 'tokens'

  def __post_init__(self):
    if not 0.0 <= self.label_smoothing < 1.0:
      raise UserError(f'label_smoothing is {self.label_smoothing}; expected 0 <= value < 1.')
    if isinstance(self.normalization, str) and self.normalization not in NORMALIZATIONS:
      raise unknown('normalization', self.normalization, NORMALIZATIONS, 'Or give a number.')
    if not isinstance(self.normalization, str) and not self.normalization > 0:
      raise UserError(f'normalization is {self.normalization}; a number must be above 0.')


def cross_entropy(
  logits: Array,
  targets: Array,
  weights: Array,
  *,
  z_loss: float = 1e-4,
  label_smoothing: float = 0.0,
  normalization: str | float = 'tokens',
  segment_ids: Array | None = None,
) -> tuple[Array, Metrics]:
  """The loss of one batch; see `token_losses` and `normalized_weights` for the formulas.

  Args:
    logits: [B, U, V].
    targets: int32[B, U].
    weights: float32[B, U], 0 where a target is padding.
    z_loss: factor of log(Z)^2.
    label_smoothing: probability taken from the target.
    normalization: "sum", "tokens", "all_tokens", "examples" or a number.
    segment_ids: int32[B, U] of packed rows, read by "examples" only.

  Returns:
    float32[] loss, and sums over the batch: see `loss_and_sums`.
  """
  loss = Loss(z_loss, label_smoothing, normalization)
  scaled = normalized_weights(weights, loss.normalization, segment_ids)
  return loss_and_sums(logits, targets, weights, scaled, loss)


def loss_and_sums(
  logits: Array, targets: Array, weights: Array, scaled: Array, loss: Loss
) -> tuple[Array, Metrics]:
  """sum(scaled * token loss), and what the metrics of a step are made of.

  Because the normaliser is inside `scaled`, the losses (and gradients, and sums) of the parts of a
  batch add up to those of the whole, whatever the normalisation.

  Returns:
    float32[] loss, and {"cross_entropy", "z_loss", "correct", "tokens"}: float32[] sums of the
    plain `weights` times each token's cross entropy, z-loss, whether the target had the highest
    logit, and one.
  """
  total, z, correct = token_losses(logits, targets, loss.z_loss, loss.label_smoothing)
  weights = weights.astype(jnp.float32)
  sums = {
    'cross_entropy': jnp.sum(weights * (total - z)),
    'z_loss': jnp.sum(weights * z),
    'correct': jnp.sum(weights * correct),
    'tokens': jnp.sum(weights),
  }
  return jnp.sum(scaled * total), jax.lax.stop_gradient(sums)


def normalized_weights(
  weights: Array, normalization: str | float, segment_ids: Array | None = None
) -> Array:
  """Weights divided so that the loss is simply sum(weights * token loss).

  Args:
    weights: [B, U] loss weights of the whole batch.
    normalization: "sum": not divided, T5X's default and so the one of the published runs; the
      optimizers of this package do not care about a constant factor. "tokens": by the sum of
      weights. "all_tokens": by B * U, padding included. "examples": the mean over examples of
      each example's mean over its tokens (T5X: AVERAGE_PER_SEQUENCE). A number: by that.
    segment_ids: int32[B, U] which packed example a target belongs to (0 padding); None where a
      row is one example.

  Returns:
    float32[B, U].
  """
  weights = weights.astype(jnp.float32)
  if normalization == 'sum':
    return weights
  if normalization == 'tokens':
    return weights / jnp.maximum(jnp.sum(weights), 1e-9)
  if normalization == 'all_tokens':
    return weights / weights.size
  if normalization == 'examples':
    if segment_ids is None:
      per_example = jnp.sum(weights, axis=-1, keepdims=True)
    else:
      same = segment_ids[:, :, None] == segment_ids[:, None, :]
      per_example = jnp.einsum('buv,bv->bu', same.astype(jnp.float32), weights)
    mean = jnp.where(per_example > 0, weights / jnp.where(per_example > 0, per_example, 1.0), 0.0)
    return mean / jnp.maximum(jnp.sum(mean), 1e-9)
  if isinstance(normalization, str):
    known = ', '.join(NORMALIZATIONS)
    raise ValueError(f'normalization is {normalization!r}; known: {known}, or a number')
  return weights / normalization


def count_examples(weights: Array, segment_ids: Array | None = None) -> Array:
  """float32[] examples of a batch that have a target with weight; arguments as above."""
  counts = weights > 0
  if segment_ids is not None:
    # An example's targets stand side by side, so each but its first follows one of its own.
    earlier = jnp.pad(jnp.where(counts, segment_ids, 0)[:, :-1], ((0, 0), (1, 0)))
    return jnp.sum(counts & (segment_ids != earlier)).astype(jnp.float32)
  return jnp.sum(jnp.any(counts, axis=-1)).astype(jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def token_losses(
  logits: Array, targets: Array, z_loss: float = 0.0, label_smoothing: float = 0.0
) -> tuple[Array, Array, Array]:
  """Cross entropy of each token plus z-loss, as in T5X's losses.py.

  With a = label_smoothing, the soft target is s_t = 1 - a and s_j = a / (V - 1) for j != t, and
    loss = -sum_j s_j log p_j + sum_j s_j log s_j + z_loss * log(Z)^2,   Z = sum_j exp(logit_j).
  The middle term makes the least possible loss 0. As sum_j s_j = 1, only log Z, the target's logit
  and the sum of the logits are needed, so nothing of shape [B, U, V] is kept but the logits.
  Only the first result has a gradient:
    d loss / d logit_j = (1 + 2 z_loss log Z) p_j - s_j.

  Args:
    logits: [B, U, V]; computed in float32.
    targets: int32[B, U].
    z_loss: factor of log(Z)^2.
    label_smoothing: a above.

  Returns:
    float32[B, U] loss with z-loss, the z-loss alone, and 1 where no logit exceeds the target's.
  """
  return _forward(logits, targets, z_loss, label_smoothing)[0]


def _soft_target(vocabulary: int, label_smoothing: float) -> tuple[float, float, float]:
  """(s_t, s_j, sum_j s_j log s_j)."""
  high, low = 1.0 - label_smoothing, label_smoothing / (vocabulary - 1)
  entropy = high * math.log(high) + (label_smoothing * math.log(low) if low > 0 else 0.0)
  return high, low, entropy


def _forward(logits, targets, z_loss, label_smoothing):
  x = logits.astype(jnp.float32)
  high, low, entropy = _soft_target(x.shape[-1], label_smoothing)
  largest = jnp.max(x, axis=-1)
  log_z = largest + jnp.log(jnp.sum(jnp.exp(x - largest[..., None]), axis=-1))
  # Gather before the cast: a gather from `x` would need the float32 copy of bfloat16 logits.
  target = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0].astype(jnp.float32)
  loss = log_z - (high - low) * target + entropy
  if low > 0:
    loss = loss - low * jnp.sum(x, axis=-1)
  z = z_loss * jnp.square(log_z)
  correct = (target >= largest).astype(jnp.float32)
  return (loss + z, z, correct), (logits, targets, log_z)


def _backward(z_loss, label_smoothing, kept, cotangents):
  logits, targets, log_z = kept
  high, low, _ = _soft_target(logits.shape[-1], label_smoothing)
  g = cotangents[0][..., None]
  p = jnp.exp(logits.astype(jnp.float32) - log_z[..., None])
  is_target = jax.lax.broadcasted_iota(targets.dtype, logits.shape, 2) == targets[..., None]
  soft = jnp.where(is_target, high, low)
  gradient = g * ((1.0 + 2.0 * z_loss * log_z)[..., None] * p - soft)
  return gradient.astype(logits.dtype), None


token_losses.defvjp(_forward, _backward)
