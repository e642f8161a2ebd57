"""States and logits that T5X's own network stored beside checkpoints it wrote."""

import functools
import gzip
import pathlib
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.checkpoints.t5x import from_t5x, load_t5x_file
from prompt_jax.models.t5 import T5
from prompt_jax.prompted import PromptedT5
from tests.shared import shared


def one_file(folder: pathlib.Path):
  packed = shared('golden', 't5x_checkpoints', 'test_t5_tiny.checkpoint_0.gz')
  path = folder / 'checkpoint_0'
  path.write_bytes(gzip.decompress(packed.read_bytes()))
  return load_t5x_file(path)


def orbax(folder: pathlib.Path):
  """T5X of 2026; read with Orbax itself, to have another set of weights to compare."""
  import orbax.checkpoint as ocp

  name = 'orbax_2026_tiny_checkpoint_3'
  with tarfile.open(shared('golden', 't5x_checkpoints', f'{name}.tar.gz')) as tar:
    tar.extractall(folder, filter='data')
  state = next(folder.rglob('state'))
  with ocp.PyTreeCheckpointer() as checkpointer:
    metadata = checkpointer.metadata(state).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
    return from_t5x(checkpointer.restore(state, restore_args=as_numpy)['target'])


@pytest.mark.parametrize(('name', 'load'), [('test_t5_tiny', one_file), ('orbax_2026_tiny', orbax)])
def test_states_and_logits(name, load, tmp_path):
  stored = np.load(shared('golden', 't5x_checkpoints', f'{name}.logits.npz'))
  cfg, params = load(tmp_path)
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
