"""T5X checkpoints in every form that T5X wrote, and what is said where one is not whole.

The fixtures are T5X's own; that they compute what T5X's network did is tested with the models.
"""

import gzip
import json
import pathlib
import shutil
import tarfile
import time

import jax
import numpy as np
import pytest
import tensorstore as ts
from flax import serialization, traverse_util

from prompt_jax.checkpoints.formats.t5x import from_t5x
from prompt_jax.checkpoints.formats.t5x_checkpoint import open_checkpoint
from prompt_jax.checkpoints.leaf import of_array
from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.testing.tiny import random_params
from tests.checkpoints.test_huggingface import CONFIGS
from tests.shared import facts, shared

FORMS = {
  'test_t5_tiny.checkpoint_0.gz': 'one msgpack file',
  'legacy_2021_tiny.tar.gz': 'msgpack and zarr',
  'legacy_2026_tiny_checkpoint_3.tar.gz': 'msgpack and zarr',
  'orbax_2026_tiny_checkpoint_3.tar.gz': 'Orbax',
}
WO = 'target.encoder.layers_1.mlp.wo.kernel'


def unpack(name: str, folder: pathlib.Path) -> pathlib.Path:
  """A fixture's checkpoint, as a folder or a file."""
  packed = shared('golden', 't5x_checkpoints', name)
  if not name.endswith('.tar.gz'):
    path = folder / 'checkpoint_0'
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    return path
  with tarfile.open(packed) as tar:
    # Python 3.11.3 and older have no filter.
    tar.extractall(folder, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
  return next(iter(folder.rglob('checkpoint_3')), folder / name.removesuffix('.tar.gz'))


def load(place: str | pathlib.Path, config: T5Config | None = None):
  """(architecture, tree) of a checkpoint."""
  checkpoint = open_checkpoint(str(place))
  cfg, leaves = from_t5x(checkpoint.target, checkpoint.where, config)
  params = {path: leaf.read() for path, leaf in leaves.items()}
  return cfg, traverse_util.unflatten_dict(params, sep='/')


@pytest.mark.parametrize('name', FORMS)
def test_every_form_is_told_and_listed(name, tmp_path):
  checkpoint = open_checkpoint(str(unpack(name, tmp_path)), prefix='')
  assert checkpoint.form == FORMS[name]
  assert len(checkpoint.target) == 52
  assert len(checkpoint.leaves) == 261
  embedding = checkpoint.target['token_embedder/embedding']
  assert embedding.shape[0] == 32128
  assert embedding.dtype == np.float32
  moment = 'state/param_states/token_embedder/embedding/v_row'
  assert len(checkpoint.leaves[moment].shape) == 1


@pytest.mark.parametrize('name', FORMS)
def test_sizes_follow_from_shapes(name, tmp_path):
  cfg, params = load(unpack(name, tmp_path))
  old = '2021' in name
  assert cfg == T5Config(
    32128, 4 if old else 8, 2 if old else 4, 2 if old else 3, 2, 2, 8 if old else 16,
    relpos_buckets=4 if old else 32,
  )  # fmt: skip
  kernel = params['decoder']['layers']['encoder_decoder_attention']['out']['kernel']
  assert kernel.shape == (2, cfg.num_heads * cfg.head_dim, cfg.emb_dim)
  assert 0.01 < np.std(kernel) < 2


def test_addresses_and_folders_of_checkpoints(tmp_path):
  checkpoint = unpack('legacy_2021_tiny.tar.gz', tmp_path)
  want = load(checkpoint)[1]
  places = (checkpoint.parent, checkpoint / 'checkpoint', f'file://{checkpoint}')
  for place in places:
    jax.tree.map(np.testing.assert_array_equal, load(place)[1], want)
  shutil.copytree(checkpoint, checkpoint.parent / 'checkpoint_12')
  assert open_checkpoint(str(checkpoint.parent)).where.endswith('checkpoint_12')


def write(path, tree):
  path.write_bytes(serialization.msgpack_serialize(tree))
  return path


# Shapes do not tell a gated ReLU from a gated GELU: its architecture must be given.
@pytest.mark.parametrize('name', [name for name in CONFIGS if name != 'gated_relu'])
def test_architecture_and_weights_from_the_file(name, tmp_path):
  cfg, params = CONFIGS[name], random_params(CONFIGS[name])
  tree = {'version': 3, 'optimizer': {'target': unstack_layers(params), 'state': {'step': 3}}}
  got_cfg, got = load(write(tmp_path / 'checkpoint', tree))
  assert got_cfg == cfg
  jax.tree.map(np.testing.assert_array_equal, got, params)


def scanned(params: dict, cfg: T5Config) -> dict:
  """A tree as scalable_t5 has it: layers along the second axis, heads apart."""
  out = {'token_embedder': params['token_embedder']}
  for stack in ('encoder', 'decoder'):
    layers = traverse_util.flatten_dict(params[stack]['layers'], sep='/')
    theirs = {}
    for path, x in layers.items():
      if 'attention/' in path:
        cut = x.shape[:2] if not path.endswith('out/kernel') else x.shape[:1]
        x = x.reshape(*cut, cfg.num_heads, cfg.head_dim, *x.shape[len(cut) + 1 :])
      theirs[path] = np.swapaxes(x, 0, 1)
    rest = {name: x for name, x in params[stack].items() if name != 'layers'}
    out[stack] = {stack: traverse_util.unflatten_dict(theirs, sep='/'), **rest}
  return out


def test_scanned_layers(tmp_path):
  cfg = CONFIGS['umt5']
  params = random_params(cfg)
  tree = scanned(params, cfg)
  query = tree['decoder']['decoder']['self_attention']['query']['kernel']
  assert query.shape == (cfg.emb_dim, cfg.num_decoder_layers, cfg.num_heads, cfg.head_dim)
  out = tree['encoder']['encoder']['attention']['out']['kernel']
  assert out.shape == (cfg.num_heads, cfg.num_encoder_layers, cfg.head_dim, cfg.emb_dim)
  got_cfg, got = load(write(tmp_path / 'checkpoint', {'optimizer': {'target': tree}}))
  assert got_cfg == cfg
  jax.tree.map(np.testing.assert_array_equal, got, params)


def test_a_cast_while_reading_is_numpys(tmp_path):
  checkpoint = open_checkpoint(str(unpack('orbax_2026_tiny_checkpoint_3.tar.gz', tmp_path)))
  leaf = from_t5x(checkpoint.target, checkpoint.where)[1]['encoder/layers/mlp/wo/kernel']
  got = leaf.read('bfloat16')
  assert got.dtype == jax.numpy.bfloat16
  np.testing.assert_array_equal(got, leaf.read().astype(jax.numpy.bfloat16))


def cut(path: pathlib.Path) -> None:
  content = path.read_bytes()
  path.write_bytes(content[: len(content) // 2])


def largest(folder: pathlib.Path) -> pathlib.Path:
  return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize(
  ('name', 'damage', 'words'),
  [
    ('legacy_2026', lambda f: cut(f / WO / '0.0'), facts('layers_1/mlp/wo/kernel', 'damaged')),
    ('legacy_2026', lambda f: (f / WO / '0.0').unlink(), facts('kernel', '1 of 1', 'chunks')),
    ('legacy_2026', lambda f: (f / WO / '.zarray').unlink(), 'layers_1/mlp/wo/kernel'),
    ('legacy_2026', lambda f: (f / WO / '.zarray').write_text('{'), facts('wo/kernel', 'damaged')),
    ('legacy_2026', lambda f: cut(f / 'checkpoint'), facts('damaged', 'msgpack')),
    ('legacy_2026', lambda f: (f / 'checkpoint').unlink(), 'T5X'),
    ('orbax_2026', lambda f: cut(f / 'state/_METADATA'), facts('_METADATA', 'Orbax')),
    ('orbax_2026', lambda f: (f / 'state/manifest.ocdbt').unlink(), 'damaged'),
    ('orbax_2026', lambda f: cut(largest(f)), 'damaged'),
    ('orbax_2026', lambda f: largest(f).unlink(), 'damaged'),
  ],
)  # fmt: skip
def test_damage_is_named_at_once(name, damage, words, tmp_path):
  folder = unpack(f'{name}_tiny_checkpoint_3.tar.gz', tmp_path)
  damage(folder)
  began = time.monotonic()
  with pytest.raises(UserError, match=words) as e:
    load(folder)
  assert time.monotonic() - began < 10
  assert str(folder) in str(e.value)
  assert '\n' not in str(e.value)


@pytest.mark.parametrize('value', [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(value, tmp_path):
  folder = unpack('legacy_2026_tiny_checkpoint_3.tar.gz', tmp_path)
  spec = {'driver': 'zarr', 'kvstore': {'driver': 'file', 'path': f'{folder / WO}/'}}
  ts.open(spec).result()[1, 2].write(value).result()
  with pytest.raises(UserError, match=facts('layers_1/mlp/wo/kernel', 'NaN', '1')):
    load(folder)


def test_an_inlined_array_that_is_not_finite(tmp_path):
  params = random_params(CONFIGS['t5'])
  params['decoder']['layers']['mlp']['wi']['kernel'][1, 0, 0] = np.nan
  path = write(tmp_path / 'checkpoint', {'optimizer': {'target': unstack_layers(params)}})
  with pytest.raises(UserError, match=facts('decoder/layers_1/mlp/wi/kernel', 'NaN')):
    load(path)


def test_a_folder_outside_the_checkpoint_is_not_read(tmp_path):
  target = unstack_layers(random_params(CONFIGS['t5']))
  spec = {'driver': 'zarr', 'kvstore': {'driver': 'gfile', 'path': '../elsewhere'}}
  target['token_embedder']['embedding'] = spec
  with pytest.raises(UserError, match=facts('folder', 'array')):
    load(write(tmp_path / 'checkpoint', {'optimizer': {'target': target}}))


def test_faults_are_named(tmp_path):
  path = tmp_path / 'checkpoint'
  with pytest.raises(UserError, match='T5X'):
    load(path)
  with pytest.raises(UserError, match='T5X'):
    load(tmp_path)
  (tmp_path / 'model.ckpt-100.index').write_text('')
  with pytest.raises(UserError, match='Mesh TensorFlow'):
    load(tmp_path / 'model.ckpt-100')
  path.write_bytes(b'\x81 not msgpack')
  with pytest.raises(UserError, match='msgpack'):
    load(path)
  with pytest.raises(UserError, match=r"\['model'\]"):
    load(write(path, {'model': {}}))
  with pytest.raises(UserError, match='address'):
    load('nowhere://bucket/checkpoint_1')


def leaves(target: dict) -> dict:
  flat = traverse_util.flatten_dict(target, sep='/')
  return {path: of_array(x, path) for path, x in flat.items()}


def test_trees_that_are_not_a_t5():
  target = unstack_layers(random_params(CONFIGS['t5_1_1']))
  with pytest.raises(UserError, match='token_embedder/embedding'):
    from_t5x(leaves({k: v for k, v in target.items() if k != 'token_embedder'}), 'here')
  encoder = {**target['encoder'], 'adapter': {'kernel': np.zeros((2, 8), np.float32)}}
  with pytest.raises(UserError, match=facts('encoder/adapter/kernel', '[2, 8]')):
    from_t5x(leaves({**target, 'encoder': encoder}), 'here')
  decoder = {k: v for k, v in target['decoder'].items() if k != 'decoder_norm'}
  with pytest.raises(UserError, match='decoder/decoder_norm/scale') as e:
    from_t5x(leaves({**target, 'decoder': decoder}), 'here')
  # Both trees, what agrees without a mark.
  assert 'encoder/encoder_norm/scale [8]' in str(e.value)
  encoder = {k: v for k, v in target['encoder'].items() if k != 'layers_1'}
  with pytest.raises(UserError, match='encoder/layers_1/attention/key/kernel'):
    from_t5x(leaves({**target, 'encoder': encoder}), 'here')
  other = T5Config(40, 8, 3, 4, 3, 2, 16)
  with pytest.raises(UserError, match=facts('mlp/wo/kernel', '[3, 12, 8]', '[3, 16, 8]')):
    from_t5x(leaves(target), 'here', other)


@pytest.mark.parametrize('path', ['encoder/prompt/prompt/prompt', 'prompt/decoder/prompt'])
def test_a_checkpoint_with_a_prompt_is_not_taken_for_the_model(path):
  target = traverse_util.flatten_dict(unstack_layers(random_params(CONFIGS['t5_1_1'])), sep='/')
  target[path] = np.zeros((2, 8), np.float32)
  with pytest.raises(UserError, match=facts(path, '[2, 8]', 'prompt')) as e:
    from_t5x(leaves(traverse_util.unflatten_dict(target, sep='/')), 'run/checkpoint_7')
  assert 'prompt-jax import run/checkpoint_7' in str(e.value)
  assert '\n' not in str(e.value)


def test_metadata_of_other_programs(tmp_path):
  (tmp_path / '_METADATA').write_text(json.dumps({'tree_metadata': [1]}))
  with pytest.raises(UserError, match='Orbax'):
    load(tmp_path)


def test_scanned_layers_compute_what_t5xs_own_network_does(tmp_path):
  reason = 'T5X is on no package index; put a checkout and what it needs on PYTHONPATH'
  network = pytest.importorskip('t5x.examples.scalable_t5.network', reason=reason)
  theirs = network.Transformer(
    network.T5Config(
      vocab_size=64, emb_dim=16, num_heads=3, head_dim=4, num_encoder_layers=3,
      num_decoder_layers=2, mlp_dim=24, mlp_activations=('gelu', 'linear'), dropout_rate=0.0,
    )
  )  # fmt: skip
  inputs = np.asarray([[5, 6, 7, 8, 9, 1], [9, 10, 1, 0, 0, 0]], np.int32)
  targets = np.asarray([[0, 3, 4], [0, 7, 8]], np.int32)
  call = dict(decoder_target_tokens=targets + 1, enable_dropout=False)
  params = theirs.init(jax.random.key(0), inputs, targets, **call)['params']
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: np.float32(x + rng.normal(size=x.shape) / 4), params)
  want = theirs.apply({'params': params}, inputs, targets, **call)
  cfg, got = load(write(tmp_path / 'checkpoint', {'optimizer': {'target': params}}))
  logits = T5(cfg).apply({'params': got}, inputs, targets)
  assert np.std(want) > 0.1
  np.testing.assert_allclose(logits, want, atol=1e-5)
