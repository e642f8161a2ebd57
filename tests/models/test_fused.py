"""The kernel of self-attention equals plain attention; it is interpreted, there being no TPU."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from reference_models import Rows, batch, reference, tokens

from prompt_jax.errors import UserError
from prompt_jax.models.attention import fused
from prompt_jax.models.attention.attend import attend
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.testing import tiny


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
  """What lies past the end of an array is NaN there."""
  call = functools.partial(pl.pallas_call, interpret=True)
  monkeypatch.setattr(fused.pl, 'pallas_call', call)


def arrays(rows, queries, keys, heads, dim, by_row=False, dtype=jnp.float32):
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  q, k, v = (draw(rows, n, heads, dim) for n in (queries, keys, keys))
  bias = draw(rows if by_row else 1, heads, queries, keys).astype(jnp.float32)
  mask = jnp.asarray(rng.random((rows, 1, queries if by_row else 1, keys)) < 0.7)
  mask = mask.at[0, :, -1].set(False)  # a query that sees nothing, or a row of padding
  return q * dim**-0.5, k, v, bias, mask


def both(q, k, v, bias, mask, keep=None, split=0):
  """(output, dq, dk, dv) of the kernel, and of plain attention."""
  rng = np.random.default_rng(1)
  dy = jnp.asarray(rng.normal(size=q.shape), q.dtype)

  def of(function):
    def call(q, k, v):
      groups = [(k[:, split:], v[:, split:])]
      groups = [(k[:1, :split], v[:1, :split]), *groups] if split else groups
      return function(q, groups, mask, bias, keep, scores_dtype='float32')

    y, back = jax.vjp(call, q, k, v)
    return y, *back(dy)

  return of(fused.attend_fused), of(functools.partial(attend, chunk=None))


def assert_close(found, wanted, tolerance):
  for a, b in zip(found, wanted, strict=True):
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    assert float(jnp.abs(a - b).max()) < tolerance * float(jnp.abs(b).max())


@pytest.mark.parametrize(
  ('sizes', 'by_row'),
  [
    ((2, 12, 15, 3, 8), False),  # heads that fill no vector
    ((2, 12, 15, 3, 8), True),  # packed: a bias and a mask of each row and query
    ((2, 130, 140, 4, 64), False),  # two heads a vector, two groups; uneven lengths
    ((1, 130, 140, 2, 128), True),
  ],
)
def test_values_and_gradients_are_those_of_plain_attention(sizes, by_row):
  found, wanted = both(*arrays(*sizes, by_row=by_row))
  assert_close(found, wanted, 1e-5)


def test_several_tiles_of_queries_add_up(monkeypatch):
  monkeypatch.setattr(fused, '_TILE', 1)  # as if a tile of 128 queries were all that fits
  found, wanted = both(*arrays(2, 260, 140, 2, 64))
  assert_close(found, wanted, 1e-5)


def test_bfloat16_is_near():
  found, wanted = both(*arrays(2, 20, 24, 2, 64, dtype=jnp.bfloat16))
  assert_close(found, wanted, 0.02)


def test_keys_of_all_rows_and_dropout_are_those_of_plain_attention():
  q, k, v, bias, mask = arrays(2, 12, 15, 3, 8)
  keep = (np.random.default_rng(2).random((2, 3, 1, 15)) < 0.8).astype(np.float32) / 0.8
  found, wanted = both(q, k, v, bias, mask, keep, split=4)
  assert_close(found, wanted, 1e-5)


@pytest.mark.parametrize('variant', ['t5_1_1', 'umt5'])  # a table a stack, a table a layer
def test_a_model_has_the_same_loss_and_the_same_gradient_of_the_prompt(variant):
  ref = reference(variant)
  example = batch(tokens(0, (11, 4), ref.cfg.vocab_size), tokens(1, (3, 3), ref.cfg.vocab_size))

  def of(attention):
    cfg = dataclasses.replace(ref.cfg, attention=attention)

    def loss(rows):
      variables = {'params': {'backbone': ref.params, 'prompt': {'rows': rows}}}
      return jnp.mean(jnp.square(PromptedT5(T5(cfg), Rows(5)).apply(variables, example)[0]))

    rows = 0.1 * jax.random.normal(jax.random.key(0), (5, cfg.emb_dim))
    calls = str(jax.make_jaxpr(loss)(rows)).count('fused_attention')
    return calls, *jax.jit(jax.value_and_grad(loss))(rows)

  plain, kernel = of('plain'), of('fused')
  assert (plain[0], kernel[0] > 0) == (0, True)
  np.testing.assert_allclose(kernel[1], plain[1], rtol=1e-5)
  assert_close(kernel[2:], plain[2:], 1e-4)


def test_training_the_table_of_the_bias_is_refused():
  ref = reference('t5_1_1')
  cfg = dataclasses.replace(ref.cfg, attention='fused')
  example = batch(tokens(0, (11, 4), 96), tokens(1, (3, 3), 96))

  def loss(backbone):
    return jnp.sum(PromptedT5(T5(cfg)).apply({'params': {'backbone': backbone}}, example)[0])

  with pytest.raises(UserError, match='relative position bias'):
    jax.make_jaxpr(jax.grad(loss))(ref.params)


def test_more_positions_than_fit_are_refused():
  q, k, v, bias, mask = arrays(1, 1, fused.MOST_KEYS + 1, 1, 8)
  with pytest.raises(UserError, match='2048'):
    fused.attend_fused(q, [(k, v)], mask, bias, None, scores_dtype='float32')


def test_queries_are_not_cut_as_well():
  with pytest.raises(UserError, match='query_chunk'):
    dataclasses.replace(tiny.config(), attention='fused', query_chunk=8)
