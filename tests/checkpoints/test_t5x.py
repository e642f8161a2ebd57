"""T5X checkpoints in one msgpack file. Stored logits are compared with the models' tests."""

import jax
import numpy as np
import pytest
from flax import serialization
from test_huggingface import CONFIGS, random_params

from prompt_jax.checkpoints.t5x import from_t5x, load_t5x_file
from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.errors import UserError


def write(path, tree):
  path.write_bytes(serialization.msgpack_serialize(tree))
  return path


@pytest.mark.parametrize('name', CONFIGS)
def test_architecture_and_weights_from_the_file(name, tmp_path):
  cfg, params = CONFIGS[name], random_params(CONFIGS[name])
  tree = {'version': 3, 'optimizer': {'target': unstack_layers(params), 'state': {'step': 3}}}
  got_cfg, got = load_t5x_file(write(tmp_path / 'checkpoint', tree))
  assert got_cfg == cfg
  jax.tree.map(np.testing.assert_array_equal, got, params)


def test_faults_are_named(tmp_path):
  path = tmp_path / 'checkpoint'
  with pytest.raises(UserError, match=r'Cannot read .*checkpoint: No such file'):
    load_t5x_file(path)
  with pytest.raises(UserError, match='is a folder'):
    load_t5x_file(tmp_path)
  path.write_bytes(b'\x81 not msgpack')
  with pytest.raises(UserError, match='is not a msgpack file'):
    load_t5x_file(path)
  with pytest.raises(UserError, match=r"holds \['model'\]; expected"):
    load_t5x_file(write(path, {'model': {}}))
  target = unstack_layers(random_params(CONFIGS['t5_1_1']))
  spec = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': 'x/'}}
  target['token_embedder']['embedding'] = spec
  with pytest.raises(UserError, match=r'1 arrays in zarr folders.* token_embedder/embedding'):
    load_t5x_file(write(path, {'optimizer': {'target': target}}))


def test_trees_that_are_not_a_t5(tmp_path):
  target = unstack_layers(random_params(CONFIGS['t5_1_1']))
  with pytest.raises(UserError, match='no matrix at token_embedder/embedding'):
    from_t5x({k: v for k, v in target.items() if k != 'token_embedder'})
  encoder = {**target['encoder'], 'prompt': {'prompt': np.zeros((2, 8))}}
  with pytest.raises(UserError, match='unknown encoder/prompt/prompt'):
    from_t5x({**target, 'encoder': encoder})
  decoder = {k: v for k, v in target['decoder'].items() if k != 'decoder_norm'}
  with pytest.raises(UserError, match='missing decoder/decoder_norm/scale'):
    from_t5x({**target, 'decoder': decoder})
