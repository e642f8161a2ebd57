"""LLaMA models in a GGUF file, or in a wheel or zip archive that holds one.

The library `gguf` reads the file and makes float32 of quantised matrices, one when it is needed.
Names and settings are turned into those of Hugging Face, which `huggingface` reads.
"""

import functools
import json
import pathlib
import tempfile
import zipfile
from typing import Any

import numpy as np

from prompt_jax.causal_formats import huggingface
from prompt_jax.causal_formats.tokenizer import Frame, TokenIds, TokenizerVocabulary
from prompt_jax.checkpoints.leaf import Leaf, Leaves, copy_finite
from prompt_jax.errors import UserError, install
from prompt_jax.models.causal.config import CausalConfig

SUFFIX = '.gguf'
# Of the file itself, and of archives that may hold one.
SUFFIXES = (SUFFIX, '.whl', '.zip')
MODELS = ('llama',)
_TENSORS = {
  'token_embd.weight': 'model.embed_tokens.weight',
  'output_norm.weight': 'model.norm.weight',
  'output.weight': 'lm_head.weight',
}
# Frequencies that llama.cpp computes from the settings of a file and stores beside them.
_UNREAD = ('rope_freqs.weight',)
_IN_LAYER = {
  'attn_norm': 'input_layernorm',
  'attn_q': 'self_attn.q_proj',
  'attn_k': 'self_attn.k_proj',
  'attn_v': 'self_attn.v_proj',
  'attn_output': 'self_attn.o_proj',
  'ffn_norm': 'post_attention_layernorm',
  'ffn_gate': 'mlp.gate_proj',
  'ffn_up': 'mlp.up_proj',
  'ffn_down': 'mlp.down_proj',
}
# The kinds of tokens in a file: what is written literally and never found in text.
_CONTROL, _USER_DEFINED = 3, 4
_BYTES = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': True}
_DIGITS = {'type': 'Digits', 'individual_digits': True}
# How text is cut before pieces are joined, by the name in a file.
_CUTS: dict[str, list[dict[str, Any]]] = {
  'smollm': [_DIGITS, _BYTES], 'gpt-2': [_BYTES]
}  # fmt: skip


class GgufModel:
  """A file, whose arrays are read when they are needed.

  Raises:
    UserError: `gguf` is absent, the file is damaged, or it holds another kind of model.
  """

  def __init__(self, name: str):
    self._name = name
    self._gguf = _library()
    with tempfile.TemporaryDirectory(prefix='prompt_jax_gguf_') as folder:
      path = self._path(pathlib.Path(name), folder)
      try:  # the file is mapped, and stays so when it is gone from the folder
        self._reader = self._gguf.GGUFReader(path)
      except Exception as error:  # the reader fails in many ways at a damaged file
        raise UserError(f'{name} is damaged or no GGUF file: {error}. Copy it again.') from None
    self.kind = self._said('general.architecture')
    if self.kind not in MODELS:
      raise UserError(
        f'{name} holds a model of the architecture {self.kind!r}; expected '
        f'{", ".join(MODELS)}. Give another model in the form of Hugging Face.'
      )

  def title(self) -> str:
    """The name of the model, for people."""
    return str(self._said('general.name', '') or pathlib.Path(self._name).stem)

  def vocabulary(self) -> TokenizerVocabulary:
    """The vocabulary, from the lists in the file; for its padding see `TokenIds.choose_pad`."""
    raw = json.dumps(self._tokenizer()).encode()
    number = lambda name: self._said(f'tokenizer.ggml.{name}_token_id', None)
    eos, rows = number('eos'), self._settings()['vocab_size']
    if eos is None:
      raise UserError(f'{self._name} does not say which token ends a text. Copy it again.')
    pad = TokenIds(raw, self._name).choose_pad([number('padding'), number('unknown')], eos, rows)
    return TokenizerVocabulary(raw, self._name, pad, eos)

  def model(self, words: TokenizerVocabulary, around: Frame) -> tuple[CausalConfig, Leaves]:
    """The architecture and the leaves, see `huggingface.model`."""
    config = huggingface.architecture(self._settings(), self._name, around)
    state = {}
    for tensor in self._reader.tensors:
      if tensor.name not in _UNREAD:
        name, heads = self._translated(tensor.name, config)
        state[name] = self._leaf(tensor, heads)
    return config, huggingface.leaves_from_huggingface(state, config, words, self._name)

  def _path(self, path: pathlib.Path, folder: str) -> pathlib.Path:
    """The file itself, taken out of an archive into the folder."""
    if path.suffix == SUFFIX:
      return path
    try:
      with zipfile.ZipFile(path) as archive:
        inside = [n for n in archive.namelist() if n.endswith(SUFFIX)]
        if len(inside) != 1:
          raise UserError(f'{path} holds {len(inside)} files {SUFFIX}; expected one.')
        return pathlib.Path(archive.extract(inside[0], folder))
    except (zipfile.BadZipFile, OSError) as error:
      raise UserError(f'{path} is damaged or no archive: {error}. Copy it again.') from None

  def _said(self, name: str, *default: Any) -> Any:
    field = self._reader.fields.get(name)
    if field is not None:
      return field.contents()
    if default:
      return default[0]
    raise UserError(f'{self._name} does not say {name}. Copy it again.')

  def _settings(self) -> dict[str, Any]:
    """What config.json would say."""
    said = lambda name, *default: self._said(f'{self.kind}.{name}', *default)
    names = {tensor.name for tensor in self._reader.tensors}
    heads, width = said('attention.head_count'), said('embedding_length')
    rows = next(t for t in self._reader.tensors if t.name == 'token_embd.weight').shape[-1]
    if said('rope.scaling.type', 'none') not in ('none', None) or _UNREAD[0] in names:
      raise UserError(
        f'{self._name} scales its rotary frequencies. Give the model in the form of Hugging Face.'
      )
    return {
      'model_type': self.kind,
      'vocab_size': int(rows),
      'hidden_size': width,
      'num_hidden_layers': said('block_count'),
      'num_attention_heads': heads,
      'num_key_value_heads': said('attention.head_count_kv', heads),
      'head_dim': said('attention.key_length', width // heads),
      'intermediate_size': said('feed_forward_length'),
      'rms_norm_eps': _decimal(said('attention.layer_norm_rms_epsilon')),
      'rope_theta': _decimal(said('rope.freq_base', 10000.0)),
      'hidden_act': 'silu',
      'attention_bias': 'blk.0.attn_q.bias' in names,
      'tie_word_embeddings': 'output.weight' not in names,
    }

  def _translated(self, name: str, config: CausalConfig) -> tuple[str, int]:
    """Hugging Face's name, and the heads whose rows are interleaved; 0 where none are."""
    if name in _TENSORS:
      return _TENSORS[name], 0
    parts = name.split('.')
    if len(parts) != 4 or parts[0] != 'blk' or parts[2] not in _IN_LAYER:
      return name, 0  # told as not read
    heads = {'attn_q': config.num_heads, 'attn_k': config.num_kv_heads}.get(parts[2], 0)
    translated = f'model.layers.{parts[1]}.{_IN_LAYER[parts[2]]}.{parts[3]}'
    return translated, heads

  def _leaf(self, tensor: Any, heads: int) -> Leaf:
    where = f'{self._name}: {tensor.name}'

    def fill(out: np.ndarray) -> None:
      values = self._gguf.quants.dequantize(tensor.data, tensor.tensor_type)
      if heads:  # llama.cpp rotates neighbours, we rotate halves
        half = values.shape[0] // heads // 2
        values = values.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(out.shape)
      copy_finite(values, out, where)

    return Leaf(tuple(map(int, tensor.shape[::-1])), np.dtype(np.float32), where, fill)

  def _tokenizer(self) -> dict[str, Any]:
    """The tokenizer.json of a byte-level BPE, from the lists in the file."""
    kind, cut = self._said('tokenizer.ggml.model'), self._said('tokenizer.ggml.pre', None)
    begins = self._said('tokenizer.ggml.add_bos_token', False)
    if kind != 'gpt2' or cut not in _CUTS or begins:
      raise UserError(
        f'{self._name} has a tokenizer of the kind {kind!r}, {cut!r}, which begins texts with a '
        f'token: {begins}; expected gpt2 with one of {", ".join(_CUTS)}, and False. Give the model '
        'in the form of Hugging Face.'
      )
    tokens = self._said('tokenizer.ggml.tokens')
    kinds = self._said('tokenizer.ggml.token_type')
    added = [
      {
        'id': i, 'content': token, 'single_word': False, 'lstrip': False, 'rstrip': False,
        'normalized': False, 'special': kinds[i] == _CONTROL,
      }
      for i, token in enumerate(tokens)
      if kinds[i] in (_CONTROL, _USER_DEFINED)
    ]  # fmt: skip
    return {
      'version': '1.0',
      'added_tokens': added,
      'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': _CUTS[cut]},
      'decoder': _BYTES,
      'model': {
        'type': 'BPE',
        'vocab': {token: i for i, token in enumerate(tokens)},
        'merges': [pair.split(' ') for pair in self._said('tokenizer.ggml.merges')],
      },
    }


def _decimal(value: float) -> float:
  """The short number that a file keeps as float32: 1e-6, not 9.999999974752427e-07."""
  return float(f'{value:.7g}')


@functools.cache
def _library() -> Any:
  try:
    import gguf
  except ImportError as error:
    raise UserError(f'A GGUF file needs gguf ({error}). Install it, {install("causal")}') from error
  return gguf
