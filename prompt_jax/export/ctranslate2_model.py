"""A model and prompts as one folder of CTranslate2, whose encoder knows the ids of the prompts.

The source vocabulary has the rows of the prompts behind the model's own, see `prompt_ids`; the
target vocabulary and the output matrix stay as they are, so that no id of a prompt can be written.
Neither torch nor transformers is needed. CTranslate2's own converter takes the output scaling of
T5 1.0 for every T5 that transformers 5 opens, which is wrong for T5 1.1 and mT5.
"""

import importlib.util
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_jax.checkpoints.formats.huggingface import arrays_to_huggingface
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.data.vocabulary import FILE_NAME, SentencePieceVocabulary, Vocabulary
from prompt_jax.errors import UserError, install, unknown
from prompt_jax.export.model import Model
from prompt_jax.export.prompt_ids import PromptIds
from prompt_jax.models.t5.config import T5Config

# Those that need no torch to be written.
QUANTIZE = ('int8', 'int8_float32', 'int8_float16', 'int16', 'float16')
SOURCE, TARGET = 'source_vocabulary.json', 'target_vocabulary.json'
State = Mapping[str, np.ndarray]


def check_installed(quantize: str | None) -> None:
  """Refuses what cannot be written on this machine.

  Raises:
    UserError: CTranslate2 is not installed, or has no such numbers.
  """
  if quantize is not None and quantize not in QUANTIZE:
    raise unknown('value of quantize', quantize, QUANTIZE, parameters=['quantize'])
  if importlib.util.find_spec('ctranslate2') is None:
    raise UserError(f'CTranslate2 is not installed; {install("ctranslate2")}')


def save(
  folder: pathlib.Path, model: Model, prompts: Sequence[PromptIds], quantize: str | None
) -> None:
  """Writes the folder, with the SentencePiece model of its ids.

  Args:
    folder: made if absent.
    model: the frozen model, unread; it is held in memory in float32.
    prompts: with ids behind its table.
    quantize: of QUANTIZE; None for float32.

  Raises:
    UserError: the folder cannot be written.
  """
  from ctranslate2.specs import transformer_spec

  config = model.t5
  state: dict[str, np.ndarray] = {}
  for path, array in model.arrays():
    for name, part in arrays_to_huggingface(config, path, array.astype(np.float32)):
      state[name] = np.ascontiguousarray(part)
  spec: Any = transformer_spec.TransformerSpec.from_config(
    (config.num_encoder_layers, config.num_decoder_layers),
    config.num_heads,
    pre_norm=True,
    activation=_activation(config),
    ffn_glu=_is_gated(config),
    relative_attention_bias=True,
    rms_norm=True,
  )
  _fill_stack(spec.encoder, 'encoder', state, config)
  _fill_stack(spec.decoder, 'decoder', state, config)
  table = state['shared.weight']
  spec.encoder.embeddings[0].weight = np.concatenate([table, *(p.rows for p in prompts)])
  spec.decoder.embeddings.weight = table
  spec.decoder.projection.weight = table if config.tied_logits else state['lm_head.weight']
  if config.tied_logits:
    spec.decoder.scale_outputs = np.float32(config.emb_dim**-0.5)
  _set_vocabularies(spec, model, prompts)
  spec.validate()
  spec.optimize(quantization=quantize)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
  except OSError as e:
    raise UserError(f'Cannot write {folder}: {e.strerror or e}. Free some space.') from None
  if isinstance(model.vocabulary, SentencePieceVocabulary):
    write_atomically(folder / FILE_NAME, model.vocabulary.model())


def _activation(config: T5Config) -> Any:
  from ctranslate2.specs import common_spec

  gelu = config.mlp_activations[0] == 'gelu'  # in the form by tanh
  return common_spec.Activation.GELUTanh if gelu else common_spec.Activation.RELU


def _is_gated(config: T5Config) -> bool:
  return len(config.mlp_activations) == 2


def _fill_stack(spec: Any, stack: str, state: State, config: T5Config) -> None:
  spec.scale_embeddings = False
  spec.layer_norm.gamma = state[f'{stack}.final_layer_norm.weight']
  for i, layer in enumerate(spec.layer):
    own = f'{stack}.block.{i}.layer'
    biased = i if config.relpos_per_layer else 0
    bias = state[f'{stack}.block.{biased}.layer.0.SelfAttention.relative_attention_bias.weight']
    attention = layer.self_attention
    _fill_attention(attention, f'{own}.0', 'SelfAttention', state)
    attention.relative_attention_bias = bias
    attention.relative_attention_max_distance = np.int32(config.relpos_max_distance)
    last = 1
    if stack == 'decoder':
      _fill_attention(layer.attention, f'{own}.1', 'EncDecAttention', state)
      last = 2
    _fill_mlp(layer.ffn, f'{own}.{last}', state, config)


def _fill_attention(spec: Any, where: str, kind: str, state: State) -> None:
  query, key, value = (state[f'{where}.{kind}.{x}.weight'] for x in 'qkv')
  spec.queries_scale = 1.0  # a T5 does not divide by the root of the head's width
  spec.layer_norm.gamma = state[f'{where}.layer_norm.weight']
  if kind == 'SelfAttention':
    spec.linear[0].weight = np.concatenate([query, key, value])
  else:
    spec.linear[0].weight = query
    spec.linear[1].weight = np.concatenate([key, value])
  spec.linear[-1].weight = state[f'{where}.{kind}.o.weight']


def _fill_mlp(spec: Any, where: str, state: State, config: T5Config) -> None:
  weight = lambda name: state[f'{where}.DenseReluDense.{name}.weight']
  spec.layer_norm.gamma = state[f'{where}.layer_norm.weight']
  if _is_gated(config):
    spec.linear_0.weight, spec.linear_0_noact.weight = weight('wi_0'), weight('wi_1')
  else:
    spec.linear_0.weight = weight('wi')
  spec.linear_1.weight = weight('wo')


def _set_vocabularies(spec: Any, model: Model, prompts: Sequence[PromptIds]) -> None:
  words = model.vocabulary
  target = names_of(words, model.config.vocab_size)
  source = [*target, *(token for prompt in prompts for token in prompt.tokens)]
  if len(set(source)) != len(source):
    raise UserError(
      f'Two ids of the vocabulary {words!r} have the same name, which CTranslate2 does not take.'
    )
  spec.register_source_vocabulary(source)
  spec.register_target_vocabulary(target)
  settings = spec.config
  settings.bos_token = settings.decoder_start_token = target[words.pad_id]
  settings.eos_token, settings.unk_token = target[words.eos_id], target[words.unk_id]
  settings.layer_norm_epsilon = 1e-6
  settings.add_source_bos = settings.add_source_eos = False


def names_of(words: Vocabulary, rows: int) -> list[str]:
  """The name of each id of a table of that many rows."""
  return [words.pieces(i) for i in range(rows)]
