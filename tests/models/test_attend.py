"""Attention some queries at a time equals attention at once, and never has all its logits."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.models.attention.attend import attend
from prompt_jax.testing import tiny

B, Q, K, N, D = 2, 12, 15, 3, 8


def arrays():
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  q, k, v, bias = draw(B, Q, N, D), draw(B, K, N, D), draw(B, K, N, D), draw(1, N, Q, K)
  mask = jnp.asarray(rng.random((B, 1, Q, K)) < 0.7)
  keep = jnp.asarray(rng.random((B, N, 1, K)) < 0.9, jnp.float32) / 0.9
  return q, k, v, bias, mask, keep


def run(chunk, q, k, v, bias, mask, keep, scores_dtype='float32'):
  groups = [(k[:1, :4], v[:1, :4]), (k[:, 4:], v[:, 4:])]  # the first is shared by all rows
  return attend(q, groups, mask, bias, keep, scores_dtype=scores_dtype, chunk=chunk)


@pytest.mark.parametrize('chunk', [1, 4, 5, 8])  # 5 and 8 do not divide the queries
@pytest.mark.parametrize('narrow', [False, True])
def test_chunks_give_the_values_and_gradients_of_the_whole(chunk, narrow):
  q, k, v, bias, mask, keep = arrays()
  if narrow:  # a mask of the keys alone, and no bias: cross attention
    mask, bias = mask[:, :, :1], jnp.zeros((1, 1, 1, 1))

  def loss(chunk, q, k, v, bias):
    return jnp.sum(jnp.sin(run(chunk, q, k, v, None if narrow else bias, mask, keep)))

  values, gradients = jax.value_and_grad(functools.partial(loss, None), (0, 1, 2, 3))(q, k, v, bias)
  got, found = jax.value_and_grad(functools.partial(loss, chunk), (0, 1, 2, 3))(q, k, v, bias)
  np.testing.assert_allclose(got, values, rtol=1e-5)
  for a, b in zip(found, gradients, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)


def largest(jaxpr) -> int:
  """Most values in one array of a jaxpr, inner ones included."""
  sizes = [v.aval.size for eqn in jaxpr.eqns for v in eqn.outvars]
  for eqn in jaxpr.eqns:
    for value in eqn.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        sizes.append(largest(inner))
  return max(sizes, default=0)


def test_no_array_holds_the_logits_of_more_queries_than_asked_for():
  q, k, v, *_ = arrays()
  long = lambda x: jnp.concatenate([x] * 20, axis=1)
  q, k, v = long(q), long(k), long(v)
  length = q.shape[1]
  mask = jnp.ones((1, 1, 1, k.shape[1]), bool)

  def traced(chunk):
    def loss(q, k, v):
      y = attend(q, [(k, v)], mask, None, None, scores_dtype='float32', chunk=chunk)
      return jnp.sum(y)

    return largest(jax.make_jaxpr(jax.grad(loss, (0, 1, 2)))(q, k, v).jaxpr)

  assert traced(None) == B * N * length * k.shape[1]
  assert traced(12) <= max(B * N * 12 * k.shape[1], q.size, k.size)


def test_bfloat16_scores_are_near_float32_ones():
  q, k, v, bias, mask, keep = arrays()
  exact = run(None, q, k, v, bias, mask, keep)
  rough = run(None, q, k, v, bias, mask, keep, scores_dtype='bfloat16')
  difference = float(jnp.abs(exact - rough).max() / jnp.abs(exact).max())
  assert 1e-5 < difference < 0.05


@pytest.mark.parametrize(
  'setting', [{'query_chunk': 0}, {'scores_dtype': 'float16'}, {'remat': 'none'}]
)
def test_settings_that_do_not_exist_are_refused(setting):
  with pytest.raises(UserError, match=next(iter(setting))):
    dataclasses.replace(tiny.config(), **setting)
