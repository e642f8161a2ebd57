"""The mimetic start, and the embeddings of the published size, on a small T5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.batch import Batch
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.pretraining.mimetic import mimetic
from prompt_jax.pretraining.published_scale import EMBEDDING_RMS, at_published_scale
from prompt_jax.prompted import PromptedT5

H, N, D = 32, 4, 8


@pytest.fixture(scope='module')
def started():
  model = PromptedT5(T5(T5Config(64, H, N, D, 2, 2, 48)))
  rng = np.random.default_rng(0)
  tokens = rng.integers(2, 60, (2, 6), np.int32)
  batch = Batch(tokens, tokens, tokens, np.ones((2, 6), np.float32))
  params = jax.jit(model.init)(jax.random.key(0), batch)['params']['backbone']
  logits = jax.jit(lambda p: model.apply({'params': {'backbone': p}}, batch)[0])
  return params, logits


@pytest.mark.parametrize(
  ('stack', 'name'),
  [
    ('encoder', 'attention'),
    ('decoder', 'self_attention'),
    ('decoder', 'encoder_decoder_attention'),
  ],
)
def test_attention_compares_and_copies(started, stack, name):
  params, _ = started
  made = mimetic(params, 0, sharpness=4.0)[stack]['layers'][name]
  kernels = {k: np.asarray(v['kernel']) for k, v in made.items()}
  for layer in range(2):
    q, k, v, out = (kernels[n][layer] for n in ('query', 'key', 'value', 'out'))
    np.testing.assert_allclose(v @ out, np.eye(H), atol=1e-5)
    np.testing.assert_allclose(q @ k.T, 4.0 / D * np.eye(H), atol=1e-5)
    # A state of root mean square 1 looks at itself with 4 over all heads, on average a head.
    x = np.ones(H)
    assert (x @ q).reshape(N, D).ravel() @ (x @ k) / N == pytest.approx(4.0, rel=1e-4)
  assert not np.allclose(kernels['key'][0], kernels['key'][1])


def test_the_rest_stays(started):
  params, _ = started
  made = mimetic(params, 0)
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, params)
  np.testing.assert_array_equal(
    made['encoder']['layers']['mlp']['wo']['kernel'],
    params['encoder']['layers']['mlp']['wo']['kernel'],
  )


def test_the_published_scale_changes_no_logit(started):
  params, logits = started
  grown = at_published_scale(params)
  embedding = grown['token_embedder']['embedding']
  assert np.sqrt(np.mean(np.square(embedding))) == pytest.approx(EMBEDDING_RMS, rel=1e-5)
  np.testing.assert_allclose(logits(grown), logits(params), atol=1e-4)
