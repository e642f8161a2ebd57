"""A tiny model whose prompt uses every injection point that decoding must carry along."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.batch import Batch
from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5

VOCAB = 40


class Everywhere(nn.Module):
  """Rows in front of encoder and decoder, and keys and values for every attention."""

  depends_on = frozenset()

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    draw = nn.initializers.normal(1.0)
    rows = lambda name, n: self.param(name, draw, (1, n, ctx.stacks['encoder'].H))
    kv = lambda name, d: self.param(name, draw, (d.L, 2, 1, 2, d.N, d.D))
    return Injections(
      encoder=Injection(prefix=rows('encoder', 3), kv=kv('encoder_kv', ctx.stacks['encoder'])),
      decoder=Injection(prefix=rows('decoder', 2), kv=kv('decoder_kv', ctx.stacks['decoder'])),
      cross=Injection(kv=kv('cross_kv', ctx.stacks['decoder'])),
    )


def build(prompt: nn.Module | None):
  cfg = T5Config(
    vocab_size=VOCAB,
    emb_dim=32,
    num_heads=2,
    head_dim=8,
    num_encoder_layers=2,
    num_decoder_layers=2,
    mlp_dim=48,
  )
  model = PromptedT5(T5(cfg), prompt)
  ones = jnp.ones((2, 3), jnp.int32)
  variables = jax.jit(model.init)(jax.random.key(0), Batch(ones, ones, ones, ones.astype(float)))
  # Sharper logits than at initialisation, so that rows differ and end at different times.
  kernel = variables['params']['backbone']['decoder']['logits_dense']['kernel']
  variables['params']['backbone']['decoder']['logits_dense']['kernel'] = 2.0 * kernel
  return model, variables


@pytest.fixture(scope='session', params=['bare', 'prompted'])
def tiny(request):
  return build(Everywhere() if request.param == 'prompted' else None)


@pytest.fixture(scope='session')
def prompted():
  return build(Everywhere())


@pytest.fixture(scope='session')
def inputs():
  tokens = np.random.default_rng(0).integers(2, VOCAB, (6, 7))
  tokens[0, 4:] = tokens[3, 2:] = 0
  return jnp.asarray(tokens, jnp.int32)


@pytest.fixture(autouse=True)
def strict_dtypes():
  """No two dtypes are mixed, unless the code says so; elsewhere optax's Adam needs to."""
  with jax.numpy_dtype_promotion('strict'):
    yield
