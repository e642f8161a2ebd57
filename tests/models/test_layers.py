"""Buckets of relative positions, activations, dropout."""

import dataclasses

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
import numpy_t5
import pytest
import torch
import transformers
from reference_models import batch, reference, tokens

from prompt_jax.models.t5.layers import relative_buckets
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5


@pytest.mark.parametrize('bidirectional', [True, False])
def test_buckets_of_every_distance(bidirectional):
  """Against double precision and against Hugging Face, exact powers of two included."""
  cfg = reference('t5_1_1').cfg
  furthest = np.arange(-600, 601, dtype=np.int32)
  run = jax.jit(
    lambda k: relative_buckets(
      jnp.zeros(1, jnp.int32), k, None, bidirectional=bidirectional, cfg=cfg
    )
  )
  got = np.asarray(run(furthest))[0]
  want = [numpy_t5.bucket(int(d), bidirectional) for d in furthest]
  np.testing.assert_array_equal(got, want)
  never = {16} if bidirectional else set()  # distance 0 after the query
  assert set(got) == set(range(32)) - never
  theirs = transformers.models.t5.modeling_t5.T5Attention._relative_position_bucket(
    torch.tensor(furthest, dtype=torch.long), bidirectional=bidirectional
  )
  np.testing.assert_array_equal(got, theirs.numpy())


def test_keys_without_bias_get_a_bucket_outside_the_table():
  cfg = reference('t5_1_1').cfg
  unbiased = jnp.array([True, False])
  positions = jnp.arange(2, dtype=jnp.int32)
  got = relative_buckets(positions, positions, unbiased, bidirectional=True, cfg=cfg)
  np.testing.assert_array_equal(got, [[32, 17], [32, 0]])


def test_dropout_needs_a_key_and_changes_outputs():
  ref = reference('t5_1_1')
  model = PromptedT5(T5(dataclasses.replace(ref.cfg, dropout_rate=0.1)))
  example = batch(tokens(0, (6, 4), 96), tokens(1, (3, 3), 96, eos=False))
  variables = {'params': {'backbone': ref.params}}
  run = jax.jit(
    lambda key: model.apply(variables, example, deterministic=False, rngs={'dropout': key})[0]
  )
  first, again, other = (run(jax.random.key(i)) for i in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).max() > 1e-2
  with pytest.raises(flax.errors.InvalidRngError):
    jax.eval_shape(lambda: model.apply(variables, example, deterministic=False))
  assert 'random_bits' in str(jax.make_jaxpr(run)(jax.random.key(0)))
  off = jax.make_jaxpr(lambda: model.apply(variables, example))()
  assert 'random_bits' not in str(off)


def test_bfloat16_is_close_and_its_logits_are_float32():
  ref = reference('t5_1_1')
  low = PromptedT5(T5(dataclasses.replace(ref.cfg, dtype='bfloat16')))
  inputs = tokens(0, (6, 4), 96)
  example = batch(inputs, tokens(1, (3, 3), 96, eos=False))
  variables = {'params': {'backbone': ref.params}}
  logits, _ = jax.eval_shape(low.apply, variables, example)
  assert logits.dtype == jnp.float32
  states = lambda model: jax.jit(lambda: model.apply(variables, inputs, method='encode').states)()
  got, want = states(low), states(ref.model())
  assert got.dtype == jnp.bfloat16
  error = np.abs(got.astype(jnp.float32) - want).max()
  assert 1e-4 < error < 0.2
