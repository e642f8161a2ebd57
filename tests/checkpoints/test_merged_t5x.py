"""A T5X checkpoint with the prompt in it, read back with the libraries that T5X reads with."""

import json

import numpy as np
import pytest
import tensorstore
from flax import serialization, traverse_util

from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.errors import UserError
from prompt_jax.export import t5x_writer
from prompt_jax.export.merged_t5x import merged, write_merged
from prompt_jax.testing.tiny import random_params
from tests.checkpoints.test_huggingface import CONFIGS

ROWS = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)


def read_back(folder):
  """{path: array} of the parameters, and the rest of the msgpack file."""
  tree = serialization.msgpack_restore((folder / 'checkpoint').read_bytes())
  is_spec = lambda path, x: 'driver' in x
  target = tree['optimizer'].pop('target')
  arrays = {}
  for path, spec in traverse_util.flatten_dict(target, is_leaf=is_spec).items():
    assert spec['kvstore']['path'] == 'target.' + '.'.join(path) + '/'
    place = {'driver': 'file', 'path': f'{folder / spec["kvstore"]["path"]}/'}
    # As T5X does: what the file says of chunks and compressor is left to .zarray.
    store = tensorstore.open({'driver': spec['driver'], 'kvstore': place}, open=True).result()
    assert list(store.shape) == spec['metadata']['shape']
    arrays[path] = store.read().result()
  return arrays, tree


@pytest.mark.parametrize('name', CONFIGS)
def test_model_and_prompt_come_back_bit_for_bit(name, tmp_path):
  params = random_params(CONFIGS[name])
  seen = []
  folder = tmp_path / 'run' / 'checkpoint_7'
  write_merged(folder, merged(params, ROWS), 7, seen.append)
  assert [p.name for p in (tmp_path / 'run').iterdir()] == ['checkpoint_7']
  arrays, rest = read_back(folder)
  want = traverse_util.flatten_dict(unstack_layers(params))
  want[('encoder', 'prompt', 'prompt', 'prompt')] = ROWS
  assert arrays.keys() == want.keys()
  assert len(seen) == len(want)
  for path, array in want.items():
    assert arrays[path].tobytes() == np.ascontiguousarray(array).tobytes(), path
  assert rest['version'] == 3
  assert rest['optimizer'] == {'state': {'step': 7}}


def test_the_files_are_those_that_t5x_writes(tmp_path):
  """Zarr version 2 with the separator ".", as in the checkpoints of T5X itself."""
  write_merged(tmp_path / 'c', merged(random_params(CONFIGS['t5_1_1']), ROWS), 0)
  folder = tmp_path / 'c' / 'target.encoder.prompt.prompt.prompt'
  about = json.loads((folder / '.zarray').read_text())
  assert about['zarr_format'] == 2
  assert about['dtype'] == '<f4'
  assert about['compressor']['id'] == 'gzip'
  assert (folder / '0.0').is_file()


def test_large_arrays_are_cut_into_chunks_that_divide_them(tmp_path, monkeypatch):
  monkeypatch.setattr(t5x_writer, 'BLOCK', 64)
  rows = np.arange(60, dtype=np.float32).reshape(6, 10)
  write_merged(tmp_path / 'c', {('encoder', 'prompt', 'prompt', 'prompt'): rows}, 0)
  folder = tmp_path / 'c' / 'target.encoder.prompt.prompt.prompt'
  chunks = json.loads((folder / '.zarray').read_text())['chunks']
  assert np.prod(chunks) * 4 <= 64
  assert all(size % part == 0 for size, part in zip(rows.shape, chunks, strict=True))
  np.testing.assert_array_equal(read_back(tmp_path / 'c')[0].popitem()[1], rows)


def test_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='file/checkpoint_0'):
    write_merged(tmp_path / 'file' / 'checkpoint_0', {('a',): ROWS}, 0)


@pytest.mark.parametrize('lazy', [False, True])
def test_t5x_loads_it(tmp_path, lazy):
  """By its own reader, from the run, the checkpoint and the file."""
  reason = 'T5X is on no package index; put a checkout and what it needs on PYTHONPATH'
  checkpoints = pytest.importorskip('t5x.checkpoints', reason=reason)
  want = merged(random_params(CONFIGS['t5_1_1']), ROWS)
  folder = tmp_path / 'checkpoint_1150000'
  write_merged(folder, want, 1_150_000)
  for place in (tmp_path, folder, folder / 'checkpoint'):
    got = checkpoints.load_t5x_checkpoint(str(place), lazy_parameters=lazy)
    arrays = traverse_util.flatten_dict(got['target'])
    assert arrays.keys() == want.keys()
    for path, array in arrays.items():
      array = array.get() if lazy else array
      assert np.asarray(array).tobytes() == np.ascontiguousarray(want[path]).tobytes(), path
