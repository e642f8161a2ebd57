"""Folders that transformers wrote, read; folders that we wrote, read by transformers."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers

from prompt_jax.checkpoints.backbone import (
  embedded_folder,
  find,
  load_backbone,
  save_backbone,
)
from prompt_jax.data.vocabulary import load_vocabulary
from prompt_jax.errors import UserError
from prompt_jax.export import model as convert
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.testing.tiny import random_params
from tests.shared import facts, mentions

SIZES = dict(
  d_model=16, d_kv=4, num_heads=3, d_ff=24, num_layers=3, num_decoder_layers=2, vocab_size=400,
  dropout_rate=0.0, decoder_start_token_id=0,
)  # fmt: skip
# Class, settings, and whether a model of its kind is published tied.
KINDS = {
  't5': ('T5', dict(feed_forward_proj='relu'), True),
  't5_1_1': ('T5', dict(feed_forward_proj='gated-gelu'), False),
  'mt5': ('MT5', dict(feed_forward_proj='gated-gelu'), False),
  'byt5': ('T5', dict(feed_forward_proj='gated-gelu', num_decoder_layers=1), False),
  'umt5': ('UMT5', dict(feed_forward_proj='gated-gelu'), False),
}
INPUTS = np.asarray([[5, 6, 7, 8, 9, 1], [9, 10, 1, 0, 0, 0]], np.int32)
TARGETS = np.asarray([[0, 3, 4], [0, 7, 8]], np.int32)


@pytest.fixture(scope='module', params=KINDS)
def case(request, tmp_path_factory):
  """(torch model, folder that transformers wrote) with random weights."""
  name, settings, tied = KINDS[request.param]
  config = getattr(transformers, f'{name}Config')(**{**SIZES, **settings}, tie_word_embeddings=tied)
  torch.manual_seed(0)
  model = getattr(transformers, f'{name}ForConditionalGeneration')(config).eval()
  if not tied:  # newer releases tie at construction whatever the configuration says
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape) / 4)
  folder = tmp_path_factory.mktemp(request.param) / 'theirs'
  model.save_pretrained(folder)
  words = {'tokenizer_class': 'ByT5Tokenizer', 'extra_ids': 125}
  (folder / 'tokenizer_config.json').write_text(json.dumps(words))
  return model, folder


def their_logits(model) -> np.ndarray:
  long = lambda x: torch.tensor(x, dtype=torch.long)
  with torch.no_grad():
    return model(
      input_ids=long(INPUTS), attention_mask=long(INPUTS > 0), decoder_input_ids=long(TARGETS)
    ).logits.numpy()


def our_logits(backbone) -> np.ndarray:
  variables = {'params': jax.tree.map(jnp.asarray, backbone.params)}
  return np.asarray(jax.jit(T5(backbone.config).apply)(variables, INPUTS, TARGETS))


def test_what_transformers_wrote(case):
  model, folder = case
  backbone = load_backbone(str(folder), 'float32')
  want = their_logits(model)
  assert np.std(want) > 0.01
  np.testing.assert_allclose(our_logits(backbone), want, atol=1e-4)
  assert backbone.vocabulary.size == 384


def test_what_transformers_reads_and_every_round_trip(case, tmp_path):
  """theirs -> ours -> T5X -> ours -> Hugging Face: the same bits, the same fingerprint."""
  model, folder = case
  first = load_backbone(str(folder), 'float32')
  place = folder
  for i, to in enumerate(('native', 't5x', 'native', 'hf', 'native')):
    source = find(str(place), 'bytes')
    place = tmp_path / f'{i}_{to}'
    listed = convert.listed(source, None)
    convert.write(place, to, listed, lambda count: None)
    again = load_backbone(str(place), 'float32', vocabulary='bytes')
    assert again.config == first.config
    assert again.fingerprint == first.fingerprint
    jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
    if to == 'hf':
      kind = type(model)
      loaded, report = kind.from_pretrained(place, output_loading_info=True)
      assert not any(report[key] for key in report if 'keys' in key), report
      if kind.__name__.startswith('UMT5'):
        # transformers 5 sets this to True whatever the file says, and scales umT5's logits by it.
        loaded.config.tie_word_embeddings = False
      np.testing.assert_allclose(their_logits(loaded.eval()), our_logits(again), atol=1e-4)
      np.testing.assert_allclose(their_logits(loaded), their_logits(model), atol=1e-5)


@pytest.fixture
def small(tmp_path):
  """A folder with its weights in several files."""
  torch.manual_seed(1)
  config = transformers.T5Config(**SIZES, feed_forward_proj='relu')
  model = transformers.T5ForConditionalGeneration(config)
  model.save_pretrained(tmp_path / 'whole')
  model.save_pretrained(tmp_path / 'm', max_shard_size='20KB')
  shutil.copy(embedded_folder() / 'sentencepiece.model', tmp_path / 'm' / 'spiece.model')
  return tmp_path / 'm'


def tree(folder) -> dict:
  return {path: leaf.read() for path, leaf in find(str(folder)).model()[1].items()}


def test_several_files_and_torchs(small, tmp_path):
  assert len(list(small.glob('*.safetensors'))) > 2
  want = tree(tmp_path / 'whole')
  jax.tree.map(np.testing.assert_array_equal, tree(small), want)
  theirs = safetensors.numpy.load_file(tmp_path / 'whole' / 'model.safetensors')
  state = {name: torch.from_numpy(x) for name, x in theirs.items()}
  for folder, old in (('zip', False), ('old', True)):
    (tmp_path / folder).mkdir()
    shutil.copy(small / 'config.json', tmp_path / folder)
    file = tmp_path / folder / 'pytorch_model.bin'
    torch.save(state, file, _use_new_zipfile_serialization=not old)
    jax.tree.map(np.testing.assert_array_equal, tree(tmp_path / folder), want)
  halved = {name: x.to(torch.bfloat16) for name, x in state.items()}
  torch.save(halved, file)
  got = tree(tmp_path / 'old')
  assert got['encoder/layers/mlp/wo/kernel'].dtype == jnp.bfloat16
  for path, x in want.items():
    np.testing.assert_array_equal(got[path], x.astype(jnp.bfloat16))


class Payload:
  """Runs code where a file with it is unpickled as pickle would."""

  def __reduce__(self):
    return (exec, ('raise SystemExit("ran")',))


def test_a_torch_file_that_brings_code_is_refused(small):
  for file in small.glob('model*'):
    file.unlink()
  torch.save({'shared.weight': Payload()}, small / 'pytorch_model.bin')
  with pytest.raises(UserError, match='tensors'):
    tree(small)


def shards(folder) -> list:
  return sorted(folder.glob('model-*.safetensors'))


def rewrite(folder, change) -> None:
  path = folder / 'model.safetensors.index.json'
  about = json.loads(path.read_text())
  change(about['weight_map'])
  path.write_text(json.dumps(about))


def poison(folder) -> None:
  arrays = safetensors.numpy.load_file(shards(folder)[0])
  next(iter(arrays.values())).flat[3] = np.nan
  safetensors.numpy.save_file(arrays, shards(folder)[0])


def cut(path) -> None:
  path.write_bytes(path.read_bytes()[:-8])


@pytest.mark.parametrize(
  ('damage', 'words'),
  [
    (lambda f: cut(shards(f)[1]), facts('model-00002-', 'damaged')),
    (lambda f: shards(f)[1].unlink(), facts('1 of', 'model-00002')),
    (lambda f: rewrite(f, lambda m: m.update({'extra.weight': shards(f)[0].name})),
     facts('extra.weight', 'model-00001', 'index')),
    (lambda f: rewrite(f, lambda m: m.pop('encoder.final_layer_norm.weight')),
     facts('encoder.final_layer_norm.weight', 'index')),
    (lambda f: rewrite(f, lambda m: m.update({'shared.weight': '../x'})), facts('1 of', 'x')),
    (lambda f: (f / 'model.safetensors.index.json').write_text('{'), 'JSON'),
    (lambda f: (f / 'model.safetensors.index.json').write_text('{}'), '"weight_map"'),
    (lambda f: (f / 'model.safetensors.index.json').unlink(), 'weights'),
    (poison, facts('model-00001-', 'NaN', '1')),
    (lambda f: (f / 'config.json').write_text('{"model_type": "bert"}'), "'bert'"),
  ],
)  # fmt: skip
def test_damage_is_named(small, damage, words):
  damage(small)
  with pytest.raises(UserError, match=words) as e:
    load_backbone(str(small), 'float32', vocabulary='bytes')
  assert '\n' not in str(e.value)


def test_a_mismatch_lists_both_trees(small):
  path = small / 'config.json'
  about = json.loads(path.read_text())
  path.write_text(json.dumps({**about, 'd_ff': 32}))
  with pytest.raises(UserError, match=r'shared\.weight') as e:
    load_backbone(str(small), vocabulary='bytes')
  assert mentions(str(e.value), 'DenseReluDense.wo.weight', '[16, 24]', '[16, 32]')
  assert 'shared.weight [400, 16]' in str(e.value)


def test_vocabularies(small):
  assert find(str(small)).vocabulary().size == 8100
  with pytest.raises(UserError, match=facts('8100', '400')):
    load_backbone(str(small))
  (small / 'spiece.model').unlink()
  with pytest.raises(UserError, match=r'spiece\.model') as e:
    load_backbone(str(small))
  assert e.value.parameters == ('vocabulary',)


def test_the_number_of_sentinels_goes_through_every_form(tmp_path):
  """Of a umT5 it must be said: other T5s have 100."""
  config = T5Config(8300, 16, 3, 4, 2, 2, 24, relpos_per_layer=True)
  raw = embedded_folder() / 'sentencepiece.model'
  words = load_vocabulary(f'{raw}:300')
  params = random_params(config)
  save_backbone(tmp_path / '0', name='m', config=config, params=params, vocabulary=words)
  place = tmp_path / '0'
  for i, to in enumerate(('t5x', 'hf', 'native', 't5x'), 1):
    listed = convert.listed(find(str(place)), None)
    place = tmp_path / str(i)
    convert.write(place, to, listed, lambda count: None)
    convert.reopen(place, to, listed)
    assert find(str(place)).vocabulary() == words
    assert find(str(place)).vocabulary().encode('<extra_id_0>') == [words.size - 1]
  (place / 'tokenizer_config.json').unlink()
  with pytest.raises(UserError, match=facts('umT5', '300', '100')) as e:
    load_backbone(str(place), 'float32')
  assert e.value.parameters == ('vocabulary',)
  load_backbone(str(place), 'float32', vocabulary=f'{raw}:300')


def test_quantised_weights_are_refused(small, tmp_path):
  arrays = safetensors.numpy.load_file(tmp_path / 'whole' / 'model.safetensors')
  arrays['shared.weight'] = arrays['shared.weight'].astype(np.int8)
  safetensors.numpy.save_file(arrays, tmp_path / 'whole' / 'model.safetensors')
  with pytest.raises(UserError, match=facts('shared.weight', 'I8', 'float16')):
    load_backbone(str(tmp_path / 'whole'), vocabulary='bytes')


def test_one_leaf_at_a_time(case):
  """What is placed is gone from the reader before the next leaf is read."""
  _, folder = case
  placed = []

  def place(path, array):
    placed.append((path, array.dtype, type(array)))
    return path

  params = load_backbone(str(folder), 'bfloat16', place=place).params
  assert params['token_embedder']['embedding'] == 'token_embedder/embedding'
  assert all(dtype == jnp.bfloat16 and kind is np.ndarray for _, dtype, kind in placed)
  assert len(placed) == len(find(str(folder)).model()[1])
