"""T5, mT5 and umT5 weights as Hugging Face names them, to our tree and back.

Pure functions on names, leaves and arrays; reading and writing files is elsewhere. Hugging Face
stores matrices as [out, in], ours are [in, out].
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from prompt_jax.checkpoints.formats.fields import check, shown, whole
from prompt_jax.checkpoints.formats.huggingface_fields import CONFIG
from prompt_jax.checkpoints.formats.t5x import to_t5x
from prompt_jax.checkpoints.leaf import (
  Leaf,
  Leaves,
  compare,
  expected_shapes,
  of_array,
  same_as,
  scaled,
  transposed,
)
from prompt_jax.checkpoints.tree import Tree, stack_leaves
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config

State = dict[str, np.ndarray]

# feed_forward_proj -> our activations. "gated-gelu" is the tanh form, T5X's.
_ACTIVATIONS = {
  'relu': ('relu',), 'gated-gelu': ('gelu', 'linear'), 'gated-relu': ('relu', 'linear')
}  # fmt: skip
MODELS = ('t5', 'mt5', 'umt5')
_SIZES = ('vocab_size', 'd_model', 'num_heads', 'd_kv', 'num_layers', 'd_ff')
# Names that transformers takes for these fields too.
_ALIASES = {
  'hidden_size': 'd_model', 'num_attention_heads': 'num_heads', 'num_hidden_layers': 'num_layers',
  'head_dim': 'd_kv',
}  # fmt: skip
# A table that the original T5 files hold and no code reads: cross attention has no positions.
_UNREAD = 'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight'
# Other names of the embedding table.
_COPIES = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')
_LOGITS = 'lm_head.weight'
_SHARED = 'shared.weight'
_KERNEL = 'decoder/logits_dense/kernel'


def from_huggingface(
  state: Mapping[str, np.ndarray], hf: Mapping[str, Any]
) -> tuple[T5Config, Tree]:
  """As `leaves_from_huggingface`, on arrays in memory."""
  leaves = {name: of_array(array, name) for name, array in state.items()}
  cfg, ours = leaves_from_huggingface(leaves, hf, 'The state')
  params = {path: leaf.read() for path, leaf in ours.items()}
  return cfg, traverse_util.unflatten_dict(params, sep='/')


def leaves_from_huggingface(
  state: Leaves, hf: Mapping[str, Any], where: str
) -> tuple[T5Config, Leaves]:
  """Our architecture and leaves.

  Args:
    state: leaves by Hugging Face name, of a `...ForConditionalGeneration` model.
    hf: its configuration (config.json).
    where: the model, for messages.

  Returns:
    The configuration and the leaves of `models.t5.t5.T5` by path; they keep their dtype.

  Raises:
    UserError: another model, or unknown, missing or misshapen arrays; both trees are listed.
  """
  cfg, table, logits = config_from_huggingface(hf, f'{where}/config.json'), _table(state, hf), None
  if table is not None:  # else reported with the other missing names
    logits, cfg = _logits(state.get(_LOGITS), table, hf, cfg)
    state = {**state, _SHARED: table}
  names = {path: name for path, name in _names(cfg).items() if name != _LOGITS}
  _check_names(state, cfg, names, where)
  leaves = {path: _ours(path, state[name]) for path, name in names.items()}
  if logits is not None:
    leaves[_KERNEL] = logits
  ours = stack_leaves(leaves, where)
  compare(expected_shapes(cfg), {p: x.shape for p, x in ours.items()}, f'{where}: the arrays')
  return cfg, ours


def to_huggingface(cfg: T5Config, params: Mapping[str, Any]) -> tuple[State, dict[str, Any]]:
  """The inverse of `from_huggingface`: arrays by name, and the configuration as a dict."""
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  arrays = (pair for path, x in flat.items() for pair in arrays_to_huggingface(cfg, path, x))
  return dict(arrays), config_to_huggingface(cfg)


def arrays_to_huggingface(
  cfg: T5Config, path: str, array: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
  """Hugging Face's names and arrays (views where they can be), one a layer, of one leaf of ours."""
  names = _names(cfg)
  for name, part in to_t5x(path, np.asarray(array)):
    yield names[name], part.T if _is_matrix(name) else part


def config_to_huggingface(cfg: T5Config) -> dict[str, Any]:
  """The config.json of an architecture.

  Raises:
    UserError: Hugging Face has no such T5.
  """
  feed_forward = {v: k for k, v in _ACTIVATIONS.items()}
  if cfg.mlp_activations not in feed_forward:
    raise UserError(
      f'Hugging Face T5 has no activations {cfg.mlp_activations}; known: {list(feed_forward)}.'
    )
  model = 'umt5' if cfg.relpos_per_layer else 't5'
  return {
    'architectures': [f'{model.upper()}ForConditionalGeneration'],
    'model_type': model,
    'vocab_size': cfg.vocab_size,
    'd_model': cfg.emb_dim,
    'd_kv': cfg.head_dim,
    'd_ff': cfg.mlp_dim,
    'num_layers': cfg.num_encoder_layers,
    'num_decoder_layers': cfg.num_decoder_layers,
    'num_heads': cfg.num_heads,
    'relative_attention_num_buckets': cfg.relpos_buckets,
    'relative_attention_max_distance': cfg.relpos_max_distance,
    'layer_norm_epsilon': 1e-6,
    'feed_forward_proj': feed_forward[cfg.mlp_activations],
    'tie_word_embeddings': cfg.tied_logits,
    'dropout_rate': cfg.dropout_rate,
    'is_encoder_decoder': True,
    'pad_token_id': 0,
    'eos_token_id': 1,
    'decoder_start_token_id': 0,
  }


def config_from_huggingface(
  hf: Mapping[str, Any], where: str = 'The Hugging Face configuration'
) -> T5Config:
  """The architecture that a config.json describes. Dropout is off, whatever it says.

  Args:
    hf: its fields.
    where: the file, for messages.

  Raises:
    UserError: another model, a field is missing or no T5 of this package has its value.
  """
  model = hf.get('model_type')
  if model not in MODELS:
    raise UserError(f'The model is of type {model!r}; expected one of {", ".join(MODELS)}.')
  check(hf, CONFIG, where)
  _check_class(hf, where)
  size = lambda name, default=None: whole(hf, name, where, default)
  for other, name in _ALIASES.items():
    if hf.get(other) is not None:
      hf = {**hf, name: hf[other]} if hf.get(name) is None else hf
      if hf[other] != hf[name]:
        raise UserError(f'{where}: {other} is {hf[other]!r} and {name} {hf[name]!r}; they are one.')
  missing = [name for name in _SIZES if hf.get(name) is None]
  if missing:
    raise UserError(f'{where} lacks {", ".join(missing)}.')
  vocab_size, emb_dim, num_heads, head_dim, layers, mlp_dim = map(size, _SIZES)
  return T5Config(
    vocab_size=vocab_size,
    emb_dim=emb_dim,
    num_heads=num_heads,
    head_dim=head_dim,
    num_encoder_layers=layers,
    num_decoder_layers=size('num_decoder_layers', layers),
    mlp_dim=mlp_dim,
    mlp_activations=_activations(hf, where),
    tied_logits=_scaled(hf, where),
    relpos_buckets=size('relative_attention_num_buckets', 32),
    relpos_max_distance=size('relative_attention_max_distance', 128),
    relpos_per_layer=model == 'umt5',
  )


def check_start(hf: Mapping[str, Any], where: str) -> None:
  """Refuses a first token of the decoder that is only called the beginning of a text.

  transformers begins to decode with `bos_token_id` where `decoder_start_token_id` is not said.
  """
  bos = hf.get('bos_token_id')
  if hf.get('decoder_start_token_id') is None and bos not in (None, 0):
    raise UserError(
      f'{where}: bos_token_id is {bos!r} and there is no decoder_start_token_id, so decoding '
      'begins with it; every T5 of this package begins with 0.'
    )


def _check_class(hf: Mapping[str, Any], where: str) -> None:
  names = hf.get('architectures') or []
  known = [f'{m.upper()}{end}' for m in MODELS for end in ('ForConditionalGeneration', 'Model')]
  known.append('T5WithLMHeadModel')  # its name before 2020
  if not isinstance(names, list) or not all(name in known for name in names):
    raise UserError(
      f'{where}: architectures is {shown(names)}; expected one of {", ".join(known)}.'
    )


def _activations(hf: Mapping[str, Any], where: str) -> tuple[str, ...]:
  kind = hf.get('feed_forward_proj')
  kind = ('relu' if hf['model_type'] == 't5' else 'gated-gelu') if kind is None else kind
  if not isinstance(kind, str) or kind not in _ACTIVATIONS:
    known = ', '.join(_ACTIVATIONS)
    raise UserError(f'{where}: feed_forward_proj is {kind!r}; known: {known}.')
  # Both follow from it, and transformers takes another value where a file has one.
  dense = 'gelu_new' if kind == 'gated-gelu' else 'relu'
  for name, value in (('dense_act_fn', dense), ('is_gated_act', kind.startswith('gated-'))):
    if hf.get(name) not in (None, value):
      raise UserError(
        f'{where}: {name} is {hf[name]!r} with feed_forward_proj {kind!r}; expected {value!r}.'
      )
  return _ACTIVATIONS[kind]


def _scaled(hf: Mapping[str, Any], where: str) -> bool:
  """Whether the decoder's states are divided by sqrt(H) before the logits, as in T5 1.0.

  Published files say so by `tie_word_embeddings`. Files of newer Hugging Face releases always say
  that it is true, and tell the truth in `scale_decoder_outputs`; mT5 never scales.
  """
  for name in ('scale_decoder_outputs', 'tie_word_embeddings'):
    if not isinstance(hf.get(name), bool | None):
      raise UserError(f'{where}: {name} is {shown(hf[name])}; expected true or false.')
  if hf['model_type'] == 'mt5':
    if hf.get('scale_decoder_outputs'):
      raise UserError(f'{where}: scale_decoder_outputs is True; no mT5 scales its logits.')
    return False
  said = [hf.get('scale_decoder_outputs'), hf.get('tie_word_embeddings'), True]
  return next(value for value in said if value is not None)


def _table(state: Leaves, hf: Mapping[str, Any]) -> Leaf | None:
  """The embedding table under any of its names; None where there is none.

  Files hold it once or several times. Where the logits come from it as well it may be kept under
  the name of the output matrix alone. Copies are held to it when it is read.
  """
  tied = hf.get('tie_word_embeddings') is not False
  name = next((n for n in (_SHARED, *_COPIES, *[_LOGITS] * tied) if n in state), None)
  if name is None:
    return None
  others = [state[other] for other in _COPIES if other in state and other != name]
  return same_as(state[name], others) if others else state[name]


def _logits(
  head: Leaf | None, table: Leaf, hf: Mapping[str, Any], cfg: T5Config
) -> tuple[Leaf | None, T5Config]:
  """The untied output matrix [H, V], or None where logits come from the embedding table.

  Scaling and tying go together in T5 1.0 (both) and 1.1 (neither). A file may still have one
  without the other; then the logits get a matrix of their own that computes the same.
  """
  if cfg.tied_logits and (head is None or head is table or _equal(head, table)):
    return None, cfg
  if head is None and hf.get('tie_word_embeddings') is False:
    raise UserError(f'{_LOGITS} is missing, and the configuration says that it is not tied.')
  kernel = transposed(head or table)
  if cfg.tied_logits:
    kernel = scaled(kernel, cfg.emb_dim**-0.5)
  return kernel, dataclasses.replace(cfg, tied_logits=False)


def _equal(a: Leaf, b: Leaf) -> bool:
  return a.shape == b.shape and np.array_equal(a.read(), b.read())


def _names(cfg: T5Config) -> dict[str, str]:
  """T5X's path of each array -> its Hugging Face name."""
  names = {'token_embedder/embedding': _SHARED}
  if not cfg.tied_logits:
    names[_KERNEL] = _LOGITS
  encoder = {'attention': 'SelfAttention'}
  decoder = {'self_attention': 'SelfAttention', 'encoder_decoder_attention': 'EncDecAttention'}
  norms = {
    'attention': 'pre_attention_layer_norm',
    'self_attention': 'pre_self_attention_layer_norm',
    'encoder_decoder_attention': 'pre_cross_attention_layer_norm',
  }
  stacks = (
    ('encoder', cfg.num_encoder_layers, encoder),
    ('decoder', cfg.num_decoder_layers, decoder),
  )
  for stack, length, attentions in stacks:
    names[f'{stack}/{stack}_norm/scale'] = f'{stack}.final_layer_norm.weight'
    for i in range(length):
      ours, theirs = f'{stack}/layers_{i}', f'{stack}.block.{i}.layer'
      for j, (attention, theirs_attention) in enumerate(attentions.items()):
        names[f'{ours}/{norms[attention]}/scale'] = f'{theirs}.{j}.layer_norm.weight'
        for part in ('query', 'key', 'value', 'out'):
          letter = 'o' if part == 'out' else part[0]
          name = f'{theirs}.{j}.{theirs_attention}.{letter}.weight'
          names[f'{ours}/{attention}/{part}/kernel'] = name
      j = len(attentions)
      names[f'{ours}/pre_mlp_layer_norm/scale'] = f'{theirs}.{j}.layer_norm.weight'
      for part in (*_inputs(cfg), 'wo'):
        names[f'{ours}/mlp/{part}/kernel'] = f'{theirs}.{j}.DenseReluDense.{part}.weight'
      if i == 0 or cfg.relpos_per_layer:
        path = f'{ours if cfg.relpos_per_layer else stack}/relpos_bias/rel_embedding'
        names[path] = f'{theirs}.0.SelfAttention.relative_attention_bias.weight'
  return names


def _inputs(cfg: T5Config) -> tuple[str, ...]:
  count = len(cfg.mlp_activations)
  return ('wi',) if count == 1 else tuple(f'wi_{i}' for i in range(count))


def _is_matrix(path: str) -> bool:
  return path.endswith(('kernel', 'rel_embedding'))


def _ours(path: str, leaf: Leaf) -> Leaf:
  return transposed(leaf) if _is_matrix(path) else leaf


def _check_names(state: Leaves, cfg: T5Config, names: Mapping[str, str], where: str) -> None:
  """Compares what is there with what the configuration says, by Hugging Face's names."""
  expected = {}
  for path, shape in expected_shapes(cfg).items():
    # A view of one number has any shape and no size.
    for name, part in to_t5x(path, np.broadcast_to(np.float32(0), shape)):
      if name in names:
        expected[names[name]] = part.shape[::-1] if _is_matrix(name) else part.shape
  ignored = {_LOGITS, _UNREAD, *_COPIES}
  found = {name: leaf.shape for name, leaf in state.items() if name not in ignored}
  compare(expected, found, f'{where}: the arrays')
