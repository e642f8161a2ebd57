"""Folders of Hugging Face PEFT: adapter_config.json and adapter_model.safetensors.

The rows or keys and values are one matrix, `prompt_embeddings`. Reading and writing need neither
PEFT nor torch. What PEFT makes of the matrix on a T5 was read in its code (0.21,
`peft_model.py: get_prompt, PeftModelForSeq2SeqLM.forward`), and the tests run it:

- Prompt tuning and P-tuning: [P * submodules, H]. The first P rows go before the encoder's input;
  the others, which PEFT's default of 2 submodules gives a T5, are read by nothing.
- Multitask prompt tuning: see `peft_multitask`.
- Prefix tuning: [P, layers * 2 * N * D], keys and then values of each layer, for the decoder's self
  attention only. With 2 submodules PEFT doubles the 2 * layers blocks and then deals out four a
  layer, of which two are used: layer l gets the keys and values of layer 2 l mod layers. With an
  even number of layers, layers l and l + layers / 2 so share theirs. With 1 submodule the cross
  attention of a T5 appends to the same cache; nothing trained so means anything here.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.formats.fields import READ, Only, Rule, check
from prompt_jax.checkpoints.leaf import safetensors_leaves
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError
from prompt_jax.prompt_formats import peft_layers, peft_multitask
from prompt_jax.prompt_formats.foreign import DecoderKeysValues, Found, Rows, Trained, checked

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'
PICKLED = 'adapter_model.bin'
TENSOR = 'prompt_embeddings'
TASK = 'SEQ_2_SEQ_LM'
ROWS = ('PROMPT_TUNING', 'P_TUNING')
PREFIX = 'PREFIX_TUNING'
KINDS = (*ROWS, PREFIX, peft_multitask.KIND, *peft_layers.KINDS)
_WHERE = 'which base model the writer had; the prompt file has the fingerprint of the model'
_BEFORE = 'how the prompt was made before and in training; its rows or keys are in the file'
# Every field of the kinds that have rows or keys, see `formats.fields`.
FIELDS: dict[str, Rule] = {
  **dict.fromkeys(
    ('peft_type', 'task_type', 'num_virtual_tokens', 'num_transformer_submodules', 'token_dim',
     'num_layers', 'num_attention_heads', 'base_model_name_or_path'), READ
  ),
  'modules_to_save': Only(([],), 'It trained parts of the model too, without which the prompt '
                          'answers otherwise: train the prompt alone'),
  'auto_mapping': _WHERE,
  'revision': _WHERE,
  'peft_version': 'who wrote the file, and with what',
  'inference_mode': 'whether the writer had finished training',
  **dict.fromkeys(
    ('prompt_tuning_init', 'prompt_tuning_init_text', 'tokenizer_name_or_path', 'tokenizer_kwargs',
     'encoder_reparameterization_type', 'encoder_hidden_size', 'encoder_num_layers',
     'encoder_dropout', 'prefix_projection', 'init_weights', 'prompt_tuning_init_state_dict_path',
     'prompt_tuning_init_task', 'num_tasks', 'num_ranks'), _BEFORE
  ),
}  # fmt: skip


def read_peft(folder: str | os.PathLike) -> Found:
  """A prompt from a PEFT folder.

  Raises:
    UserError: a file is missing or damaged, they contradict each other, or PEFT means something by
      them that a T5 of this package cannot do.
  """
  folder = pathlib.Path(folder)
  config = on_disk.read_json(folder / CONFIG)
  kind = config.get('peft_type')
  if kind not in KINDS:
    raise UserError(
      f'{str(folder / CONFIG)!r} is of peft_type {kind!r}; only {", ".join(KINDS)} can be imported.'
    )
  if config.get('task_type') != TASK:
    raise UserError(
      f'{str(folder / CONFIG)!r} has task_type {config.get("task_type")!r}; a prompt of a T5 has '
      f'{TASK!r}. Prompts of other kinds of models mean nothing to it.'
    )
  _check_weights(folder)
  if kind in peft_layers.KINDS:
    return Found(
      prompt=peft_layers.read_layers(folder, config),
      form=f'PEFT {kind}',
      path=str(folder / WEIGHTS),
      base_model=config.get('base_model_name_or_path'),
    )
  check(config, FIELDS, str(folder / CONFIG))
  length = _number(folder, config, 'num_virtual_tokens')
  # PEFT itself takes 2 for sequence to sequence models where nothing is said.
  copies = _number(folder, config, 'num_transformer_submodules', default=2)
  tensors = peft_multitask.TENSORS if kind == peft_multitask.KIND else (TENSOR,)
  arrays = _arrays(folder, tensors)
  matrix = arrays[TENSOR]
  prompt: Rows | DecoderKeysValues | Trained
  if kind == PREFIX:
    prompt = _prefix(folder, config, matrix, length, copies)
  elif kind == peft_multitask.KIND:
    prompt = peft_multitask.read_multitask(arrays, folder / WEIGHTS, length, copies)
  else:
    width = config.get('token_dim')
    values = checked(matrix, folder / WEIGHTS, (length * copies, width))
    prompt = Rows(values[:length])
  return Found(
    prompt=prompt,
    form=f'PEFT {kind}',
    path=str(folder / WEIGHTS),
    base_model=config.get('base_model_name_or_path'),
  )


def write_peft(
  folder: str | os.PathLike,
  prompt: Rows | DecoderKeysValues | Trained,
  *,
  base_model: str | None,
  layers: int,
  heads: int,
) -> None:
  """Writes a folder for `peft.PeftModel.from_pretrained`.

  Args:
    folder: is made.
    prompt: rows before the input, keys and values of the decoder, or a method that PEFT has.
    base_model: what the configuration calls the model; `AutoPeftModel` loads it by that name.
    layers: of the decoder.
    heads: N.

  Raises:
    UserError: PEFT cannot say what the prompt says, or the folder cannot be written.
  """
  folder = pathlib.Path(folder)
  if isinstance(prompt, Trained) and not isinstance(prompt.method, peft_multitask.METHOD):
    return peft_layers.write_layers(folder, prompt, base_model)
  kind: dict[str, Any]
  if isinstance(prompt, Trained):
    kind, tensors = peft_multitask.multitask_tensors(prompt)
  elif isinstance(prompt, Rows):
    if prompt.placement != 'before':
      raise UserError(
        f'The prompt has its rows at {prompt.placement!r}; PEFT puts rows before the input only. '
        'Export it to npy, or tune it with placement "before".',
        parameters=['to'],
      )
    tensors = {TENSOR: prompt.values}
    kind = {
      'peft_type': ROWS[0],
      'num_virtual_tokens': len(prompt.values),
      'token_dim': prompt.values.shape[1],
      'num_transformer_submodules': 1,
      'prompt_tuning_init': 'RANDOM',
    }
  else:
    tensors = {TENSOR: _prefix_matrix(prompt.values)}
    kind = {
      'peft_type': PREFIX,
      'num_virtual_tokens': prompt.values.shape[2],
      'token_dim': heads * prompt.values.shape[4],
      'num_transformer_submodules': 2,
      'prefix_projection': False,
    }
  config = {
    **kind,
    'task_type': TASK,
    'inference_mode': True,
    'base_model_name_or_path': base_model,
    'num_layers': layers,
    'num_attention_heads': heads,
  }
  tensors = {name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()}
  # The configuration last: a folder without it is none.
  write_atomically(folder / WEIGHTS, safetensors.numpy.save(tensors, {'format': 'pt'}))
  on_disk.write_json(folder / CONFIG, config)


def _prefix(
  folder: pathlib.Path, config: dict[str, Any], matrix: np.ndarray, length: int, copies: int
) -> DecoderKeysValues:
  """Which keys and values PEFT gives each of a T5's decoder layers."""
  if copies != 2:
    raise UserError(
      f'{str(folder / CONFIG)!r} has num_transformer_submodules {copies}: PEFT then lets the '
      "cross attention of a T5 write into the prefix's cache, which is no prefix tuning. Train it "
      "with 2, PEFT's default."
    )
  layers, heads, width = (
    _number(folder, config, name) for name in ('num_layers', 'num_attention_heads', 'token_dim')
  )
  if width % heads:
    raise UserError(
      f'{str(folder / CONFIG)!r}: token_dim {width} is no multiple of num_attention_heads {heads}.'
    )
  values = checked(matrix, folder / WEIGHTS, (length, layers * 2 * width))
  dealt = values.reshape(length, layers, 2, heads, width // heads).transpose(1, 2, 0, 3, 4)
  return DecoderKeysValues(np.ascontiguousarray(dealt[_dealt_to(layers)]))


def _prefix_matrix(values: np.ndarray) -> np.ndarray:
  """The matrix [P, L * 2 * N * D] that PEFT deals out as `values` [L, 2, P, N, D]."""
  layers, _, length = values.shape[:3]
  source = _dealt_to(layers)
  matrix = np.zeros_like(values)
  matrix[source] = values
  if not np.array_equal(matrix[source], values):
    raise UserError(
      f"PEFT gives layers l and l + {layers // 2} of a T5's decoder the same keys and values (a "
      f'decoder of {layers} layers, an even number); this prompt has its own in every layer. Keep '
      'the prompt file of this package.'
    )
  return matrix.transpose(2, 0, 1, 3, 4).reshape(length, -1)


def _dealt_to(layers: int) -> np.ndarray:
  """int[layers] the layer of the matrix whose keys and values each layer of a decoder gets."""
  return 2 * np.arange(layers) % layers


def _number(
  folder: pathlib.Path, config: dict[str, Any], name: str, default: int | None = None
) -> int:
  value = config.get(name)
  value = default if value is None else value
  if isinstance(value, bool) or not isinstance(value, int) or value < 1:
    raise UserError(
      f'{str(folder / CONFIG)!r} has {name} {value!r}; expected a whole number of at least 1. Save '
      'the adapter again with PeftModel.save_pretrained.'
    )
  return value


def _check_weights(folder: pathlib.Path) -> None:
  if not (folder / WEIGHTS).is_file():
    old = f' {PICKLED} is there, a pickle:' if (folder / PICKLED).is_file() else ''
    raise UserError(
      f'{str(folder)!r} has no {WEIGHTS}.{old} save the adapter again with '
      'PeftModel.save_pretrained(folder, safe_serialization=True).'
    )


def _arrays(folder: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
  path = folder / WEIGHTS
  leaves = safetensors_leaves(path)
  if {*leaves} == {*names}:
    return {name: leaf.read() for name, leaf in leaves.items()}
  more = [name for name in leaves if name not in names]
  raise UserError(
    f'{str(path)!r} holds {", ".join(more[:5]) or "not all"}{" ..." * (len(more) > 5)}; expected '
    f'{" and ".join(map(repr, names))} alone. A prompt that was trained with other parts of the '
    'model works only with them, and cannot be imported.'
  )
