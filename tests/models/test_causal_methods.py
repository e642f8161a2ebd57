"""Prompt methods on a decoder-only model with all that such models have.

That every method finds its place there, `tests/test_conformance.py` shows.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from prompt_jax.checkpoints.leaf import expected_shapes
from prompt_jax.loading import prompted
from prompt_jax.models.causal.config import CausalConfig
from prompt_jax.prompts.initialise import initialise_prompt
from prompt_jax.testing import tiny
from prompt_jax.training.losses import Loss
from prompt_jax.training.objective import BatchLoss, CrossEntropy
from tests.both_ways import both_ways
from tests.test_conformance import compiled, parse

CONFIG = CausalConfig(
  vocab_size=64, emb_dim=32, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=10, mlp_dim=48,
  rope_theta=(1e4, 1e4, 1e6), windows=(4, 4, 0), before=(7, 8), between=(9, 10), qk_norm=True,
  post_norms=True, norm_offset=1.0, embed_scale=32**0.5, activation='gelu', biases='inputs',
  attention_softcap=5.0, logit_softcap=3.0, tied_logits=False,
)  # fmt: skip
# One for each thing that can be added to a model, and for each thing that can be read of an input.
METHODS = (
  'input-before_eos', 'deep-add-before_eos', 'prefix_zero-shifted', 'dept', 'late', 'mam', 'lora',
  'task_prompts', 'id_spam', 'idpg', 'label_rows', 'control_prefixes',
)  # fmt: skip
BATCH = tiny.batch().replace(features={'task_id': jnp.arange(3, dtype=jnp.int32)})


@functools.cache
def backbone():
  rng = np.random.default_rng(0)
  flat = {p: 0.1 * rng.normal(size=s) for p, s in expected_shapes(CONFIG).items()}
  return traverse_util.unflatten_dict({p: x.astype(np.float32) for p, x in flat.items()}, sep='/')


@pytest.mark.parametrize('name', METHODS)
def test_a_method_trains_and_decodes(name):
  """The loss has a gradient, and cached decoding gives the logits of teacher forcing."""
  method = parse(name)
  model = prompted(CONFIG, method)
  table = jnp.asarray(backbone()['token_embedder']['embedding'])
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of norms and of a vocabulary this small
    prompt, constants = initialise_prompt(model, jax.random.key(1), table, tiny.Vocabulary())
  keys = iter(jax.random.split(jax.random.key(2), 64))
  prompt = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), prompt)
  constants = {'prompt': constants} if constants else {}

  @compiled
  def call(prompt):
    loss = BatchLoss(
      CrossEntropy(model, Loss()), {'backbone': backbone()}, constants, BATCH, microbatches=1
    )
    gradient, metrics = loss.gradient({'prompt': prompt}, jax.random.key(0))
    variables = {'params': {'backbone': backbone(), 'prompt': prompt}, 'constants': constants}
    run = functools.partial(model.apply, variables)
    return gradient, metrics['loss'], *both_ways(run, BATCH)

  gradient, loss, forced, cached = call(prompt)
  np.testing.assert_allclose(cached, forced, atol=2e-5)
  assert np.isfinite(loss)
  flat = traverse_util.flatten_dict(gradient, sep='/')
  still = [path for path, x in flat.items() if not np.any(x)]
  assert all(np.isfinite(x).all() for x in flat.values())
  assert not still
