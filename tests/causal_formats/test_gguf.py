"""A GGUF file is the model that it was written from."""

import json
import shutil
import zipfile

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

from prompt_jax.causal_formats.gguf import GgufModel
from prompt_jax.checkpoints.backbone import find
from prompt_jax.errors import UserError
from tests.shared import facts

NAMES = {
  'self_attn.q_proj': 'attn_q', 'self_attn.k_proj': 'attn_k', 'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output', 'mlp.gate_proj': 'ffn_gate', 'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down', 'input_layernorm': 'attn_norm',
  'post_attention_layernorm': 'ffn_norm',
}  # fmt: skip


def written(folder, path, architecture='llama', pre='smollm', begins=False, **left_out):
  """The model of a Hugging Face folder as llama.cpp's converter stores it."""
  about = json.loads((folder / 'config.json').read_text())
  words = json.loads((folder / 'tokenizer.json').read_text())
  to = gguf.GGUFWriter(path, architecture)
  to.add_name('Tiny')
  to.add_block_count(about['num_hidden_layers'])
  to.add_embedding_length(about['hidden_size'])
  to.add_feed_forward_length(about['intermediate_size'])
  to.add_head_count(about['num_attention_heads'])
  to.add_head_count_kv(about['num_key_value_heads'])
  to.add_layer_norm_rms_eps(about['rms_norm_eps'])
  to.add_rope_freq_base(1e4)
  to.add_tokenizer_model('gpt2')
  to.add_tokenizer_pre(pre)
  to.add_add_bos_token(begins)
  tokens = sorted(words['model']['vocab'], key=words['model']['vocab'].get)
  rows = about['vocab_size']
  tokens += [f'[PAD{i}]' for i in range(len(tokens), rows)]
  to.add_token_list(tokens)
  special = {t['content'] for t in words['added_tokens']}
  to.add_token_types([3 if t in special else 5 if t.startswith('[PAD') else 1 for t in tokens])
  to.add_token_merges([' '.join(pair) for pair in words['model']['merges']])
  for name, number in {'bos': 1, 'eos': 2, 'unk': 0, 'pad': 2}.items():
    if name not in left_out:
      getattr(to, f'add_{name}_token_id')(number)
  for name, array in load_file(folder / 'model.safetensors').items():
    to.add_tensor(*_tensor(name, array, about))
  to.write_header_to_file()
  to.write_kv_data_to_file()
  to.write_tensors_to_file()
  to.close()
  return path


def _tensor(name, array, about):
  if not name.startswith('model.layers.'):
    plain = {
      'model.embed_tokens.weight': 'token_embd.weight',
      'model.norm.weight': 'output_norm.weight',
    }
    return plain[name], array
  _, _, layer, rest = name.split('.', 3)
  kind = NAMES[rest.removesuffix('.weight')]
  heads = {'attn_q': 'num_attention_heads', 'attn_k': 'num_key_value_heads'}.get(kind)
  if heads:  # halves of a head become neighbours
    n = about[heads]
    array = array.reshape(n, 2, array.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(array.shape)
  return f'blk.{layer}.{kind}.weight', np.ascontiguousarray(array)


@pytest.fixture(scope='module')
def file(folder, tmp_path_factory):
  return written(folder, tmp_path_factory.mktemp('gguf') / 'tiny.gguf')


def same(found, expected):
  (config, leaves), (wanted, theirs) = found.model(), expected.model()
  assert config == wanted
  assert leaves.keys() == theirs.keys()
  for path, leaf in leaves.items():
    np.testing.assert_array_equal(leaf.read(), theirs[path].read())


def test_it_is_the_same_model_and_vocabulary(folder, file):
  found, expected = find(str(file)), find(str(folder))
  same(found, expected)
  assert found.name == 'Tiny'
  text = 'it was good, 12 <|im_end|>\n\n  great é'
  assert found.vocabulary().encode(text) == expected.vocabulary().encode(text)
  assert found.vocabulary().decode(found.vocabulary().encode(text)) == text


@pytest.mark.parametrize('ending', ['.whl', '.zip'])
def test_in_an_archive(folder, file, tmp_path, ending):
  path = tmp_path / f'model{ending}'
  with zipfile.ZipFile(path, 'w') as archive:
    archive.write(file, 'package/tiny.gguf')
    archive.writestr('package/__init__.py', '')
  same(find(str(path)), find(str(folder)))


def test_quantised_matrices_are_read(folder, tmp_path):
  """Q8_0 keeps 8 bits of each number and a scale for 32 of them."""
  weights = load_file(folder / 'model.safetensors')
  plain = GgufModel(str(written(folder, tmp_path / 'plain.gguf')))
  tensor = next(t for t in plain._reader.tensors if t.name == 'blk.0.attn_v.weight')
  rounded = gguf.quants.quantize(np.array(tensor.data), gguf.GGMLQuantizationType.Q8_0)
  back = gguf.quants.dequantize(rounded, gguf.GGMLQuantizationType.Q8_0)
  leaf = plain._leaf(tensor._replace(data=rounded, tensor_type=gguf.GGMLQuantizationType.Q8_0), 0)
  np.testing.assert_array_equal(leaf.read(), back)
  near = weights['model.layers.0.self_attn.v_proj.weight']
  assert 0 < np.abs(back - near).max() < np.abs(near).max() / 100


@pytest.mark.parametrize(
  ('settings', 'says'),
  [
    (dict(architecture='mamba'), ['mamba', 'llama']),
    (dict(pre='tekken'), ['tekken', 'smollm']),
    (dict(begins=True), ['True', 'smollm']),
    (dict(eos=False), ['ends']),
  ],
)
def test_another_kind_of_file_is_refused(folder, tmp_path, settings, says):
  path = written(folder, tmp_path / 'other.gguf', **settings)
  with pytest.raises(UserError, match=facts(*says)):
    find(str(path)).vocabulary()


def test_what_is_no_such_file_is_told(file, tmp_path):
  cut = tmp_path / 'cut.gguf'
  shutil.copyfile(file, cut)
  cut.write_bytes(cut.read_bytes()[:100])
  empty = tmp_path / 'empty.zip'
  with zipfile.ZipFile(empty, 'w'):
    pass
  none = tmp_path / 'none.whl'
  none.write_text('no archive')
  for path in (cut, empty, none):
    with pytest.raises(UserError, match=facts(path.name)):
      find(str(path))
