"""Fingerprints: the same for every form of the same weights, another for other weights."""

import time

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from prompt_jax.checkpoints.backbone import fingerprint

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 40, 50)).astype(np.float32)  # 2000 values a layer: not all are read
SCALE = RNG.normal(size=(3, 40)).astype(np.float32)
EMBEDDING = RNG.normal(size=(30, 40)).astype(np.float32)


def stacked(kernel=KERNEL, scale=SCALE, embedding=EMBEDDING):
  layers = {'mlp': {'wi': {'kernel': kernel}}, 'norm': {'scale': scale}}
  return {'token_embedder': {'embedding': embedding}, 'encoder': {'layers': layers}}


def apart():
  encoder = {
    f'layers_{i}': {'norm': {'scale': SCALE[i]}, 'mlp': {'wi': {'kernel': KERNEL[i]}}}
    for i in range(3)
  }
  return {'encoder': encoder, 'token_embedder': {'embedding': EMBEDDING}}


def test_every_form_of_the_same_weights():
  name = fingerprint(stacked())
  assert len(name) == 16
  assert fingerprint(apart()) == name
  for convert in (
    jnp.asarray,
    lambda x: x.astype(ml_dtypes.bfloat16),
    lambda x: jnp.asarray(x, jnp.bfloat16),
    lambda x: x.astype(np.float64),
  ):
    assert fingerprint(stacked(*map(convert, (KERNEL, SCALE, EMBEDDING)))) == name


def test_it_is_stable():
  """Prompt files live for years: a change of this value makes all of them foreign."""
  x = np.linspace(-1, 1, 24, dtype=np.float32)
  params = {'encoder': {'layers': {'scale': x.reshape(2, 12)}, 'norm': {'scale': x}}}
  assert fingerprint(params) == 'a03c406119b6ec4d'


@pytest.mark.parametrize('which', ['kernel', 'scale', 'embedding'])
def test_other_values_other_fingerprint(which):
  changed = {'kernel': KERNEL, 'scale': SCALE, 'embedding': EMBEDDING}[which].copy()
  changed[..., 0] += 0.1
  assert fingerprint(stacked(**{which: changed})) != fingerprint(stacked())


def test_names_shapes_and_order_of_layers_count():
  base = fingerprint(stacked())
  assert fingerprint(stacked(kernel=KERNEL[::-1])) != base
  assert fingerprint(stacked(embedding=EMBEDDING.reshape(40, 30))) != base
  renamed = stacked()
  renamed['encoder']['layers']['ln'] = renamed['encoder']['layers'].pop('norm')
  assert fingerprint(renamed) != base


def test_it_reads_a_sample_only():
  """A leaf of 40 GB is never touched as a whole: a sparse one of that size is done at once."""
  one = np.ones(1, np.float32)
  leaf = np.lib.stride_tricks.as_strided(one, (24, 20_000, 20_000), (0, 0, 0))
  began = time.process_time()
  fingerprint({'encoder': {'layers': {'kernel': leaf}}})
  assert time.process_time() - began < 2
