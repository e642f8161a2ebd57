"""A model folder: written, read, and refused where it is wrong."""

import json

import jax
import numpy as np
import pytest

from prompt_jax.checkpoints import backbone, leaf
from prompt_jax.checkpoints.backbone import fingerprint
from prompt_jax.checkpoints.formats import native
from prompt_jax.checkpoints.leaf import expected_shapes
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from tests.shared import facts

CONFIG = T5Config(384, 16, 2, 4, 2, 1, 24)


def _params(seed=0):
  rng = np.random.default_rng(seed)
  out = {}
  for path, shape in expected_shapes(CONFIG).items():
    branch = out
    *parents, last = path.split('/')
    for key in parents:
      branch = branch.setdefault(key, {})
    branch[last] = rng.normal(size=shape).astype(np.float32)
  return out


@pytest.fixture
def folder(tmp_path):
  backbone.save_backbone(
    tmp_path / 'm', name='tiny', config=CONFIG, params=_params(), vocabulary=ByteVocabulary()
  )
  return tmp_path / 'm'


def test_a_model_comes_back_bit_for_bit(folder):
  loaded = backbone.load_backbone(str(folder), dtype='float32')
  assert loaded.config == CONFIG
  assert loaded.name == 'tiny'
  assert loaded.vocabulary.encode('a') == [100]
  jax.tree.map(np.testing.assert_array_equal, loaded.params, _params())


def test_the_fingerprint_does_not_depend_on_the_dtype_it_is_loaded_in(folder):
  loaded = [backbone.load_backbone(str(folder), dtype=d) for d in ('float32', 'bfloat16')]
  assert loaded[1].params['token_embedder']['embedding'].dtype == jax.numpy.bfloat16
  assert {m.fingerprint for m in loaded} == {fingerprint(_params())}


def test_bfloat16_storage_rounds_and_no_more(folder, tmp_path):
  backbone.save_backbone(
    tmp_path / 'b',
    name='tiny',
    config=CONFIG,
    params=_params(),
    vocabulary=ByteVocabulary(),
    dtype='bfloat16',
  )
  got = backbone.load_backbone(str(tmp_path / 'b'), dtype='float32').params
  want = jax.tree.map(lambda x: x.astype(jax.numpy.bfloat16).astype(np.float32), _params())
  jax.tree.map(np.testing.assert_array_equal, got, want)


def _truncate(folder):
  path = folder / native.WEIGHTS
  path.write_bytes(path.read_bytes()[:-100])


def _flip(folder):
  """One bit, in the middle of the numbers: the file is well formed, and no value is infinite."""
  path = folder / native.WEIGHTS
  content = bytearray(path.read_bytes())
  content[len(content) // 2 & ~3] ^= 1
  path.write_bytes(bytes(content))


def _another_width(folder):
  path = folder / native.CONFIG
  about = json.loads(path.read_text())
  about['architecture']['emb_dim'] = 32
  path.write_text(json.dumps(about))


@pytest.mark.parametrize(
  ('damage', 'words'),
  [
    (lambda f: (f / native.WEIGHTS).unlink(), 'weights'),
    (lambda f: (f / native.CONFIG).unlink(), 'folder'),
    (lambda f: (f / native.CONFIG).write_text('{'), 'JSON'),
    (lambda f: (f / native.CONFIG).write_text('{}'), 'model'),
    (_truncate, 'damaged'),
    (_flip, facts('damaged', 'bytes', 'changed')),
    (_another_width, facts('encoder/encoder_norm/scale', '[16]', '[32]')),
  ],
)
def test_what_is_wrong_is_named(folder, damage, words):
  damage(folder)
  with pytest.raises(UserError, match=words):
    backbone.load_backbone(str(folder))


def test_checksums_of_arrays_that_are_read_in_blocks(folder, monkeypatch):
  monkeypatch.setattr(leaf, 'BLOCK', 256)
  whole = backbone.load_backbone(str(folder)).params
  again = folder.with_name('again')
  backbone.save_backbone(
    again, name='tiny', config=CONFIG, params=whole, vocabulary=ByteVocabulary()
  )
  assert json.loads((again / native.CONFIG).read_text()) == json.loads(
    (folder / native.CONFIG).read_text()
  )
  _flip(again)
  with pytest.raises(UserError, match='changed'):
    backbone.load_backbone(str(again))


def test_an_unknown_name_says_what_to_give():
  with pytest.raises(UserError, match='embedded'):
    backbone.load_backbone('no/such/folder')
