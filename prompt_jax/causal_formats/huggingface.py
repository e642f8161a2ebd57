"""LLaMA, Qwen and Gemma as Hugging Face's transformers stores them, to our tree.

Hugging Face stores matrices as [out, in], ours are [in, out].
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_jax.causal_formats.tokenizer import (
  FILE_NAME,
  Frame,
  TokenIds,
  TokenizerVocabulary,
  order,
  read,
)
from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.formats.huggingface_folder import weights
from prompt_jax.checkpoints.leaf import (
  Leaf,
  Leaves,
  compare,
  expected_shapes,
  same_as,
  stacked,
  transposed,
)
from prompt_jax.errors import UserError
from prompt_jax.models.causal.config import CausalConfig

MODELS = ('llama', 'qwen2', 'qwen3', 'gemma2', 'gemma3_text')
_GEMMA = ('gemma2', 'gemma3_text')
_ACTIVATIONS = {'silu': 'silu', 'swish': 'silu', 'gelu_pytorch_tanh': 'gelu'}
_TABLE, _HEAD, _NORM = 'model.embed_tokens.weight', 'lm_head.weight', 'model.norm.weight'
_LAYER = 'model.layers.{}.'
_FULL, _SLIDING = 'full_attention', 'sliding_attention'
# What a config.json must say, since the defaults of its family are not those of others.
_OF_GEMMA = ('hidden_activation', 'sliding_window', 'query_pre_attn_scalar')
_SAID = {
  'gemma2': (*_OF_GEMMA, 'attn_logit_softcapping', 'final_logit_softcapping'),
  'gemma3_text': _OF_GEMMA,
}
# Our path in a layer -> Hugging Face's name in it. What a model has not is left out.
_MATRICES = {
  'self_attention/query/kernel': 'self_attn.q_proj.weight',
  'self_attention/key/kernel': 'self_attn.k_proj.weight',
  'self_attention/value/kernel': 'self_attn.v_proj.weight',
  'self_attention/out/kernel': 'self_attn.o_proj.weight',
  'mlp/wi_0/kernel': 'mlp.gate_proj.weight',
  'mlp/wi_1/kernel': 'mlp.up_proj.weight',
  'mlp/wo/kernel': 'mlp.down_proj.weight',
}  # fmt: skip
_VECTORS = {
  'self_attention/query/bias': 'self_attn.q_proj.bias',
  'self_attention/key/bias': 'self_attn.k_proj.bias',
  'self_attention/value/bias': 'self_attn.v_proj.bias',
  'self_attention/out/bias': 'self_attn.o_proj.bias',
  'self_attention/query_norm/scale': 'self_attn.q_norm.weight',
  'self_attention/key_norm/scale': 'self_attn.k_norm.weight',
  'pre_self_attention_layer_norm/scale': 'input_layernorm.weight',
}  # fmt: skip
# The same name stands for another norm in Gemma.
_NORMS = {'pre_mlp_layer_norm/scale': 'post_attention_layernorm.weight'}
_NORMS_OF_GEMMA = {
  'post_self_attention_layer_norm/scale': 'post_attention_layernorm.weight',
  'pre_mlp_layer_norm/scale': 'pre_feedforward_layernorm.weight',
  'post_mlp_layer_norm/scale': 'post_feedforward_layernorm.weight',
}


def vocabulary(folder: pathlib.Path, about: Mapping[str, Any]) -> TokenizerVocabulary:
  """The vocabulary of a folder; for its padding see `tokenizer.choose_pad`.

  Raises:
    UserError: it has none, or does not say which token ends a text.
  """
  path, raw = folder / 'tokenizer_config.json', read(folder / FILE_NAME)
  said = on_disk.read_json(path) if path.is_file() else {}
  where = str(folder / FILE_NAME)
  ids = TokenIds(raw, where)

  def number(name: str) -> int | None:
    token = said.get(f'{name}_token')
    token = token.get('content') if isinstance(token, dict) else token
    found = about.get(f'{name}_token_id') if token is None else ids.of(token)
    found = found[0] if isinstance(found, list) and found else found
    return found if type(found) is int else None

  eos = number('eos')
  if eos is None:
    raise UserError(
      f'{folder} does not say which token ends a text: add eos_token to tokenizer_config.json.'
    )
  rows = _need(about, 'vocab_size', str(folder / 'config.json'))
  pad = ids.choose_pad([number('pad'), number('unk')], eos, rows)
  return TokenizerVocabulary(raw, where, pad, eos)


def architecture(about: Mapping[str, Any], where: str, around: Frame) -> CausalConfig:
  """The architecture that a config.json tells.

  Args:
    about: the file.
    where: its name, for messages.
    around: what stands around an input.

  Raises:
    UserError: another model, or a setting that this package does not compute; it is named.
  """
  kind = about.get('model_type')
  if kind not in MODELS:
    raise UserError(f'{where}: model_type is {kind!r}; expected one of {", ".join(MODELS)}.')
  gemma = kind in _GEMMA
  _refuse(about, where)
  _check_said(about, kind, where)
  need = lambda name: _need(about, name, where)
  layers, heads, width = need('num_hidden_layers'), need('num_attention_heads'), need('hidden_size')
  activation = about.get('hidden_activation' if gemma else 'hidden_act')
  if activation not in _ACTIVATIONS:
    raise UserError(
      f'{where}: the activation is {activation!r}; expected {", ".join(_ACTIVATIONS)}.'
    )
  scalar = about.get('query_pre_attn_scalar') if gemma else None
  return CausalConfig(
    vocab_size=need('vocab_size'),
    emb_dim=width,
    num_layers=layers,
    num_heads=heads,
    num_kv_heads=about.get('num_key_value_heads') or heads,
    head_dim=about.get('head_dim') or width // heads,
    mlp_dim=need('intermediate_size'),
    **_of_layers(about, kind, layers, where),
    before=tuple(around.before),
    between=tuple(around.between),
    reads_end=around.reads_end,
    activation=_ACTIVATIONS[activation],
    norm_eps=about.get('rms_norm_eps', 1e-6),
    norm_offset=1.0 if gemma else 0.0,
    post_norms=gemma,
    qk_norm=kind in ('qwen3', 'gemma3_text'),
    biases='inputs' if kind == 'qwen2' else 'all' if about.get('attention_bias') else 'none',
    embed_scale=width**0.5 if gemma else 1.0,
    query_scale=None if scalar is None else scalar**-0.5,
    attention_softcap=about.get('attn_logit_softcapping') if gemma else None,
    logit_softcap=about.get('final_logit_softcapping') if gemma else None,
    tied_logits=bool(about.get('tie_word_embeddings', gemma)),
  )


def leaves_from_huggingface(
  state: Leaves, config: CausalConfig, words: TokenizerVocabulary, where: str
) -> Leaves:
  """The leaves of `models.causal.causal.CausalLM` by path, rows of tables in our order of ids.

  Raises:
    UserError: unknown, missing or misshapen arrays; both trees are listed.
  """
  norms = _NORMS_OF_GEMMA if config.post_norms else _NORMS
  ids = order(config.vocab_size, words.pad, words.eos)
  found: Leaves = {}
  read: set[str] = {_HEAD}  # a tied model may hold the table twice
  one = {'token_embedder/embedding': _TABLE, 'decoder/decoder_norm/scale': _NORM}
  for path, name in one.items():
    if name in state:
      found[path] = reordered(state[name], ids) if name == _TABLE else state[name]
      read.add(name)
  if config.tied_logits and _HEAD in state and _TABLE in state:
    tied = same_as(state[_TABLE], [state[_HEAD]])  # transformers would not tie what differs
    found['token_embedder/embedding'] = reordered(tied, ids)
  if not config.tied_logits and _HEAD in state:
    found['decoder/logits_dense/kernel'] = transposed(reordered(state[_HEAD], ids))
  for table, turn in ((_MATRICES, transposed), (_VECTORS | norms, lambda leaf: leaf)):
    for path, name in table.items():
      names = [_LAYER.format(i) + name for i in range(config.num_layers)]
      here = [n for n in names if n in state]
      if here:
        read |= set(here)
        missing = [n for n in names if n not in state]
        if missing:
          raise UserError(f'{where} lacks {len(missing)} arrays, such as {missing[0]}.')
        found[f'decoder/layers/{path}'] = stacked([turn(state[n]) for n in names], name)
  unread = [n for n in state if n not in read and not n.endswith('rotary_emb.inv_freq')]
  if unread:
    raise UserError(
      f'{where} holds {len(unread)} arrays that are not read, such as {unread[0]}; expected those '
      f'of a model with its output layer, such as {_TABLE}.'
    )
  shapes = {path: leaf.shape for path, leaf in found.items()}
  compare(expected_shapes(config), shapes, f'{where}: the arrays')
  return found


def reordered(leaf: Leaf, ids: np.ndarray) -> Leaf:
  """A table with its rows in our order; `ids` int32[V] are the model's own of each of ours."""
  moved = np.flatnonzero(ids != np.arange(len(ids)))  # four at most

  def fill(out: np.ndarray) -> None:
    leaf.fill(out)
    out[moved] = out[ids[moved]]

  return dataclasses.replace(leaf, fill=fill)


def model(
  folder: pathlib.Path, about: Mapping[str, Any], words: TokenizerVocabulary, around: Frame
) -> tuple[CausalConfig, Leaves]:
  """The architecture and the leaves of a folder, unread."""
  where = str(folder / 'config.json')
  try:
    config = architecture(about, where, around)
  except (TypeError, ValueError, AttributeError) as error:
    raise UserError(f'{where}: a setting is of another type than expected: {error}') from None
  return config, leaves_from_huggingface(weights(folder), config, words, str(folder))


def _need(about: Mapping[str, Any], name: str, where: str) -> int:
  value = about.get(name)
  if isinstance(value, bool) or not isinstance(value, int) or value < 1:
    raise UserError(f'{where}: {name} is {value!r}; expected a whole number of at least 1.')
  return value


def _refuse(about: Mapping[str, Any], where: str) -> None:
  """Refuses what would be computed differently."""
  wrong = ('mlp_bias', False), ('use_bidirectional_attention', False), ('quantization_config', None)
  for name, good in wrong:
    if about.get(name, good) not in (good, None):
      raise UserError(f'{where}: {name} is {about[name]!r}, which this package does not compute.')


def _of_layers(about: Mapping[str, Any], kind: str, layers: int, where: str) -> dict[str, Any]:
  """Windows and rotary embeddings of every layer, by our names."""
  kinds = _layer_types(about, kind, layers)
  window = about.get('sliding_window') or 0
  if not set(kinds) <= {_FULL, _SLIDING} or (_SLIDING in kinds and not window):
    raise UserError(
      f'{where}: layer_types is {sorted(set(kinds))} and sliding_window {window}; expected '
      f'{_FULL}, or {_SLIDING} with a window.'
    )
  ropes = [_rope(about, kind, each, where) for each in kinds]
  factors = {factors for _, factors in ropes}
  if len(factors) > 1:
    raise UserError(f'{where}: layers scale their rotary frequencies differently.')
  return {
    'rope_theta': tuple(theta for theta, _ in ropes),
    'rope_factors': factors.pop(),
    'windows': tuple(window if each == _SLIDING else 0 for each in kinds),
  }


def _layer_types(about: Mapping[str, Any], kind: str, layers: int) -> list[str]:
  """What each layer sees: "sliding_attention" or "full_attention"."""
  if about.get('layer_types'):
    return list(about['layer_types'])
  names = (_FULL, _SLIDING)
  if kind == 'gemma2':
    return [names[i % 2 == 0] for i in range(layers)]
  if kind == 'gemma3_text':
    every = about.get('sliding_window_pattern') or 6
    return [names[(i + 1) % every != 0] for i in range(layers)]
  if kind.startswith('qwen') and about.get('use_sliding_window'):
    return [names[i >= about.get('max_window_layers', layers)] for i in range(layers)]
  return [names[0]] * layers


def _rope(
  about: Mapping[str, Any], kind: str, layer: str, where: str
) -> tuple[float, tuple[float, float, float, float] | None]:
  """The base of a layer's rotary embedding and the factors that scale it."""
  said = about.get('rope_parameters') or about.get('rope_scaling') or {}
  theta = about.get('rope_theta')
  if layer in said or (kind == 'gemma3_text' and about.get('rope_parameters')):
    said = said.get(layer) or {}
  elif kind == 'gemma3_text' and layer == _SLIDING:  # the older form: scaled in full layers alone
    said, theta = {}, about.get('rope_local_base_freq')
  theta = said.get('rope_theta') or theta
  if theta is None:
    raise UserError(f'{where} does not say the rope_theta of its layers ({layer}).')
  form = said.get('rope_type', said.get('type', 'default'))
  if form == 'default':
    return float(theta), None
  if form != 'llama3':
    raise UserError(f'{where}: the rope_type is {form!r}; expected default or llama3.')
  names = ('factor', 'low_freq_factor', 'high_freq_factor', 'original_max_position_embeddings')
  if any(name not in said for name in names):
    raise UserError(f'{where}: the rope_type llama3 needs {", ".join(names)}.')
  one, low, high, length = (float(said[name]) for name in names)
  return float(theta), (one, low, high, length)


def _check_said(about: Mapping[str, Any], kind: str, where: str) -> None:
  missing = [name for name in _SAID.get(kind, ('hidden_act', 'rms_norm_eps')) if name not in about]
  if missing:
    raise UserError(
      f'{where} does not say {", ".join(missing)}, of which a {kind} has defaults of its own. '
      'Add them as the model was published.'
    )
