"""Matrices in int8: how far from their values, and that the model computes with them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from prompt_jax.checkpoints.backbone import load_backbone
from prompt_jax.models.t5.layers import Int8, quantise
from prompt_jax.models.t5.t5 import T5
from prompt_jax.testing import tiny

KERNEL = 'encoder/layers/mlp/wo/kernel'


def quantised(params):
  flat = traverse_util.flatten_dict(params, sep='/')
  return traverse_util.unflatten_dict({p: quantise(p, x) for p, x in flat.items()}, sep='/')


def dequantised(params):
  is_int8 = lambda x: isinstance(x, Int8)
  plain = lambda x: x.values * x.scale if is_int8(x) else x
  return jax.tree.map(plain, params, is_leaf=is_int8)


def test_values_are_within_half_a_step_of_their_channel():
  array = np.random.default_rng(0).normal(size=(3, 16, 8)).astype(np.float32)
  array[:, :, 0] *= 100
  array[:, :, 1] = 0
  got = quantise(KERNEL, array)
  assert got.values.dtype == np.int8
  assert got.scale.shape == (3, 1, 8)
  step = np.abs(array).max(axis=1, keepdims=True) / 127
  assert (np.abs(got.values * got.scale - array) <= step / 2 + 1e-6).all()


def test_a_table_has_a_scale_per_row_and_vectors_stay_as_they_are():
  table = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
  assert quantise('token_embedder/embedding', table).scale.shape == (5, 1)
  for path in ('encoder/encoder_norm/scale', 'encoder/relpos_bias/rel_embedding'):
    assert quantise(path, table) is table


@pytest.mark.parametrize('tied', [False, True])
def test_the_model_computes_what_it_does_with_the_rounded_values(tied):
  cfg = dataclasses.replace(tiny.config(), tied_logits=tied)
  params = quantised(jax.tree.map(lambda x: 0.3 * x, tiny.random_params(cfg)))
  batch = tiny.batch()
  call = jax.jit(
    lambda p: T5(cfg).apply({'params': p}, batch.encoder_input_tokens, batch.decoder_input_tokens)
  )
  got, want = call(params), call(dequantised(params))
  assert float(jnp.abs(got - want).max() / jnp.abs(want).max()) < 1e-4


def test_logits_of_the_embedded_model_change_by_little():
  plain, small = load_backbone('embedded', 'float32'), load_backbone('embedded', weights='int8')
  assert small.fingerprint == plain.fingerprint
  ids = plain.vocabulary.encode('Returns the number of items in a list.')
  tokens, start = jnp.asarray([ids]), jnp.zeros((1, 4), jnp.int32)
  call = jax.jit(lambda p: T5(plain.config).apply({'params': p}, tokens, start))
  want, got = call(plain.params), call(small.params)
  error = float(jnp.linalg.norm(got - want) / jnp.linalg.norm(want - want.mean()))
  assert 0 < error < 0.05
