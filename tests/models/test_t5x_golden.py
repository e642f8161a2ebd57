"""States and logits that T5X's own network stored beside checkpoints it wrote."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from tests.checkpoints.test_t5x import load, unpack
from tests.shared import shared

FILES = {
  'test_t5_tiny': 'test_t5_tiny.checkpoint_0.gz',
  'legacy_2026_tiny': 'legacy_2026_tiny_checkpoint_3.tar.gz',
  'orbax_2026_tiny': 'orbax_2026_tiny_checkpoint_3.tar.gz',
}


@pytest.mark.parametrize('name', FILES)
def test_states_and_logits(name, tmp_path):
  stored = np.load(shared('golden', 't5x_checkpoints', f'{name}.logits.npz'))
  cfg, params = load(unpack(FILES[name], tmp_path))
  model = PromptedT5(T5(cfg))

  @jax.jit
  def run(params, inputs, targets):
    apply = functools.partial(model.apply, {'params': {'backbone': params}})
    encoded = apply(inputs, method='encode')
    return encoded.states, apply(encoded, targets, method='decode')[..., :1024]

  inputs, targets = stored['encoder_input_tokens'], stored['decoder_input_tokens']
  states, logits = run(jax.tree.map(jnp.asarray, params), inputs, targets)
  real = inputs > 0
  assert not real.all()
  assert np.std(stored['encoded'][real]) > 0.1
  np.testing.assert_allclose(states[real], stored['encoded'][real], atol=1e-5)
  real = stored['decoder_target_tokens'] > 0
  np.testing.assert_allclose(logits[real], stored['logits'][real], atol=1e-5)
