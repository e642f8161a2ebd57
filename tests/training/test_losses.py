"""The loss against its formulas in float64 NumPy, and its gradient against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.training import losses
from tests.shared import facts

B, U, V = 3, 4, 11
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (B, U, V)) + 2
TARGETS = RNG.integers(0, V, (B, U)).astype(np.int32)
WEIGHTS = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], np.float32)


def reference(logits, targets, z_loss, smoothing):
  """float64[B, U]: each line as the docstring of `token_losses` states it."""
  log_z = np.log(np.exp(logits).sum(-1))
  log_p = logits - log_z[..., None]
  soft = np.full(logits.shape, smoothing / (V - 1))
  np.put_along_axis(soft, targets[..., None], 1 - smoothing, -1)
  entropy = np.sum(soft * np.log(np.maximum(soft, 1e-300)), -1)
  return -(soft * log_p).sum(-1) + entropy + z_loss * log_z**2


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize('z_loss', [0.0, 1e-2])
def test_token_losses_and_gradient(z_loss, smoothing):
  logits = jnp.asarray(LOGITS, jnp.float32)
  total, z, correct = losses.token_losses(logits, TARGETS, z_loss, smoothing)
  np.testing.assert_allclose(total, reference(LOGITS, TARGETS, z_loss, smoothing), rtol=2e-5)
  log_z = np.log(np.exp(LOGITS).sum(-1))
  np.testing.assert_allclose(z, z_loss * log_z**2, rtol=1e-5)
  np.testing.assert_array_equal(correct, LOGITS.argmax(-1) == TARGETS)

  weights = RNG.normal(size=(B, U))
  gradient = jax.grad(
    lambda x: jnp.sum(weights * losses.token_losses(x, TARGETS, z_loss, smoothing)[0])
  )(logits)
  numeric = np.zeros_like(LOGITS)
  for index in np.ndindex(LOGITS.shape):
    step = np.zeros_like(LOGITS)
    step[index] = 1e-5
    up, down = (
      (weights * reference(LOGITS + s * step, TARGETS, z_loss, smoothing)).sum() for s in (1, -1)
    )
    numeric[index] = (up - down) / 2e-5
  np.testing.assert_allclose(gradient, numeric, atol=2e-5)


def test_a_perfect_smoothed_prediction_costs_nothing():
  soft = np.full((1, 1, V), 0.1 / (V - 1))
  soft[0, 0, 3] = 0.9
  total, _, _ = losses.token_losses(jnp.log(soft), np.array([[3]]), 0.0, 0.1)
  np.testing.assert_allclose(total, 0.0, atol=1e-6)


@pytest.mark.parametrize(
  ('normalization', 'expected'),
  [
    ('sum', lambda t: (WEIGHTS * t).sum()),
    ('tokens', lambda t: (WEIGHTS * t).sum() / 4),
    ('all_tokens', lambda t: (WEIGHTS * t).sum() / 12),
    ('examples', lambda t: (t[0, :3].mean() + t[1, 0]) / 2),  # The row without targets is no row.
    (7.0, lambda t: (WEIGHTS * t).sum() / 7),
  ],
)
def test_normalization(normalization, expected):
  token = reference(LOGITS, TARGETS, 1e-4, 0.0)
  value, sums = losses.cross_entropy(
    jnp.asarray(LOGITS, jnp.float32), TARGETS, WEIGHTS, normalization=normalization
  )
  np.testing.assert_allclose(value, expected(token), rtol=1e-5)
  plain = reference(LOGITS, TARGETS, 0.0, 0.0)
  np.testing.assert_allclose(sums['cross_entropy'], (WEIGHTS * plain).sum(), rtol=1e-5)
  assert float(sums['tokens']) == 4.0
  assert float(sums['correct']) == float((WEIGHTS * (LOGITS.argmax(-1) == TARGETS)).sum())


def test_packed_examples_weigh_the_same_as_rows():
  apart = losses.normalized_weights(np.array([[1, 1, 1], [1, 0, 0]], np.float32), 'examples')
  packed = losses.normalized_weights(
    np.array([[1, 1, 1, 1, 0]], np.float32), 'examples', np.array([[1, 1, 1, 2, 0]])
  )
  np.testing.assert_allclose(packed[0, :4], [apart[0, 0], apart[0, 1], apart[0, 2], apart[1, 0]])
  np.testing.assert_allclose(packed[0], [1 / 6, 1 / 6, 1 / 6, 1 / 2, 0], rtol=1e-6)


def test_no_targets_is_zero_and_not_nan():
  for normalization in losses.NORMALIZATIONS:
    value, _ = losses.cross_entropy(
      jnp.asarray(LOGITS, jnp.float32), TARGETS, 0 * WEIGHTS, normalization=normalization
    )
    assert float(value) == 0.0


def test_bad_settings_are_named():
  with pytest.raises(UserError, match=facts("'token'", "'tokens'")):
    losses.Loss(normalization='token')
  with pytest.raises(UserError, match=facts('label_smoothing', '1')):
    losses.Loss(label_smoothing=1.0)
  with pytest.raises(UserError, match=facts('normalization', '0')):
    losses.Loss(normalization=0.0)


def test_only_one_buffer_as_large_as_the_logits():
  """Compiled gradient of the loss: its result and, beyond it, no second [B, U, V] array."""
  b, u, v = 8, 4, 4096
  logits = jax.ShapeDtypeStruct((b, u, v), jnp.float32)
  targets = jax.ShapeDtypeStruct((b, u), jnp.int32)
  weights = jax.ShapeDtypeStruct((b, u), jnp.float32)

  def gradient(logits, targets, weights):
    def value(x):
      return losses.cross_entropy(x, targets, weights, z_loss=1e-4, label_smoothing=0.1)[0]

    return jax.grad(value)(logits)

  memory = jax.jit(gradient).lower(logits, targets, weights).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 0.1 * b * u * v * 4


def test_examples_are_counted_by_row_or_by_segment():
  weights = jnp.asarray([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], jnp.float32)
  segments = jnp.asarray([[1, 1, 1, 2, 2], [0, 0, 0, 0, 0], [1, 2, 2, 0, 0]])
  assert float(losses.count_examples(weights)) == 2
  assert float(losses.count_examples(weights, segments)) == 4
