"""PEFT folders as files: bit-exact round trips, and a line for each that is wrong.

That PEFT computes the same with them is tested in test_peft_parity.py.
"""

import dataclasses
import json

import ml_dtypes
import numpy as np
import peft
import pytest
import safetensors.numpy

from prompt_jax.errors import UserError
from prompt_jax.prompt_formats.foreign import DecoderKeysValues, Rows, Trained
from prompt_jax.prompt_formats.peft import FIELDS, read_peft, write_peft
from prompt_jax.prompts.methods.multitask.mpt import MPT
from prompt_jax.prompts.tables import LowRank
from tests.shared import facts

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(3, 8)).astype(np.float32)
SIZES = {'base_model': 't5', 'layers': 2, 'heads': 2}
CONFIG = {
  'peft_type': 'PROMPT_TUNING', 'task_type': 'SEQ_2_SEQ_LM', 'num_virtual_tokens': 3,
  'num_transformer_submodules': 2, 'token_dim': 8, 'num_layers': 2, 'num_attention_heads': 2,
  'base_model_name_or_path': 'google/t5-v1_1-base',
}  # fmt: skip


def folder(path, matrix, **changes):
  config = {**CONFIG, **changes}
  (path / 'adapter_config.json').write_text(json.dumps(config))
  safetensors.numpy.save_file({'prompt_embeddings': matrix}, path / 'adapter_model.safetensors')
  return path


def test_rows_there_and_back_bit_for_bit(tmp_path):
  write_peft(tmp_path / 'new', Rows(ROWS), **SIZES)
  assert sorted(p.name for p in (tmp_path / 'new').iterdir()) == [
    'adapter_config.json', 'adapter_model.safetensors'
  ]  # fmt: skip
  found = read_peft(tmp_path / 'new')
  assert found.prompt.values.tobytes() == ROWS.tobytes()
  assert (found.form, found.base_model) == ('PEFT PROMPT_TUNING', 't5')


@pytest.mark.parametrize('layers', [1, 3, 5])
def test_keys_and_values_there_and_back_bit_for_bit(tmp_path, layers):
  values = RNG.normal(size=(layers, 2, 3, 2, 4)).astype(np.float32)
  write_peft(tmp_path, DecoderKeysValues(values), **{**SIZES, 'layers': layers})
  found = read_peft(tmp_path)
  assert isinstance(found.prompt, DecoderKeysValues)
  assert found.prompt.values.tobytes() == values.tobytes()


def test_an_even_decoder_only_where_layers_share_their_keys(tmp_path):
  half = RNG.normal(size=(2, 2, 3, 2, 4)).astype(np.float32)
  sizes = {**SIZES, 'layers': 4}
  shared_keys = np.concatenate([half, half])
  write_peft(tmp_path / 'shared', DecoderKeysValues(shared_keys), **sizes)
  np.testing.assert_array_equal(read_peft(tmp_path / 'shared').prompt.values, shared_keys)
  with pytest.raises(UserError, match=facts('layers', 'l + 2', 'keys and values')):
    write_peft(tmp_path / 'own', DecoderKeysValues(np.concatenate([half, half + 1])), **sizes)
  assert not (tmp_path / 'own').exists()


def multitask(decoder):
  shapes = {'encoder/prompt': (3, 8), 'rows': (2, 6 if decoder else 3, 2), 'columns': (2, 2, 8)}
  shapes |= {'decoder/prompt': (3, 8)} if decoder else {}
  params = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
  return Trained(MPT(2, 3, rank=2, decoder=decoder), params)


@pytest.mark.parametrize('decoder', [False, True])
def test_multitask_prompts_there_and_back_bit_for_bit(tmp_path, decoder):
  given = multitask(decoder)
  write_peft(tmp_path, given, **SIZES)
  found = read_peft(tmp_path).prompt
  assert {k: x.tobytes() for k, x in found.params.items()} == {
    k: x.tobytes() for k, x in given.params.items()
  }
  sizes = lambda m: (m.tasks, m.length, m.rank, m.decoder, m.placement)
  assert sizes(found.method) == sizes(given.method)


def test_multitask_prompts_that_peft_cannot_hold(tmp_path):
  given = multitask(False)
  other = [
    Trained(given.method.clone(placement='after_bos'), given.params),
    Trained(given.method.clone(table=LowRank()), {'encoder/left': 0, 'encoder/right': 0}),
  ]
  for prompt, says in zip(other, ("'after_bos'", 'LowRank'), strict=True):
    with pytest.raises(UserError, match=facts(says, 'task_prompts')):
      write_peft(tmp_path / 'new', prompt, **SIZES)
  write_peft(tmp_path, given, **SIZES)
  weights = tmp_path / 'adapter_model.safetensors'
  arrays = safetensors.numpy.load_file(weights)
  arrays['prefix_task_rows'] = arrays['prefix_task_rows'][:1]
  safetensors.numpy.save_file(arrays, weights)
  with pytest.raises(UserError, match=facts('[1, 2, 8]', '[2, 2, 8]')):
    read_peft(tmp_path)


def test_rows_that_peft_cannot_place(tmp_path):
  with pytest.raises(UserError, match=facts("'before_eos'", 'PEFT')):
    write_peft(tmp_path / 'new', Rows(ROWS, 'before_eos'), **SIZES)


def test_the_second_half_of_doubled_rows_is_left_out(tmp_path):
  doubled = np.concatenate([ROWS, 9 * np.ones_like(ROWS)])
  for changes in ({}, {'num_transformer_submodules': None}, {'peft_type': 'P_TUNING'}):
    found = read_peft(folder(tmp_path, doubled, **changes))
    np.testing.assert_array_equal(found.prompt.values, ROWS)
  assert found.base_model == 'google/t5-v1_1-base'


def test_half_precision_becomes_float32_exactly(tmp_path):
  matrix = np.concatenate([ROWS, ROWS]).astype(ml_dtypes.bfloat16)
  found = read_peft(folder(tmp_path, matrix))
  assert found.prompt.values.dtype == np.float32
  np.testing.assert_array_equal(found.prompt.values, matrix[:3].astype(np.float32))


@pytest.mark.parametrize(
  ('changes', 'match'),
  [
    ({'peft_type': 'LOHA'}, facts("peft_type 'LOHA'", 'PROMPT_TUNING')),
    ({'peft_type': 'MULTITASK_PROMPT_TUNING'}, facts('not all', 'prefix_task_cols')),
    ({'peft_type': 'CPT'}, facts("'CPT'", 'MULTITASK_PROMPT_TUNING')),
    ({'task_type': 'CAUSAL_LM'}, "task_type 'CAUSAL_LM'"),
    ({'num_virtual_tokens': None}, 'num_virtual_tokens None'),
    ({'num_virtual_tokens': 0}, 'num_virtual_tokens 0'),
    ({'num_virtual_tokens': 4}, facts('[6, 8]', '[8, 8]')),
    ({'num_transformer_submodules': 1}, facts('[6, 8]', '[3, 8]')),
    ({'token_dim': 16}, facts('[6, 8]', '[6, 16]')),
    ({'peft_type': 'PREFIX_TUNING'}, facts('[6, 8]', '[3, 32]')),
    (
      {'peft_type': 'PREFIX_TUNING', 'num_transformer_submodules': 1},
      facts('num_transformer_submodules', '2'),
    ),
    ({'peft_type': 'PREFIX_TUNING', 'num_attention_heads': 3}, facts('num_attention_heads', '3')),
    ({'peft_type': 'PREFIX_TUNING', 'num_layers': None}, 'num_layers None'),
  ],
)
def test_a_configuration_that_is_no_prompt_of_a_t5(tmp_path, changes, match):
  with pytest.raises(UserError, match=match) as e:
    read_peft(folder(tmp_path, np.concatenate([ROWS, ROWS]), **changes))
  assert str(tmp_path) in str(e.value)
  assert '\n' not in str(e.value)


def test_what_else_was_trained_is_refused_by_name(tmp_path):
  matrix = np.concatenate([ROWS, ROWS])
  with pytest.raises(UserError, match=facts('modules_to_save', 'lm_head')):
    read_peft(folder(tmp_path, matrix, modules_to_save=['lm_head']))
  read_peft(folder(tmp_path, matrix, modules_to_save=[]))
  more = {'prompt_embeddings': matrix, 'base_model.lm_head.weight': np.ones((2, 2), np.float32)}
  safetensors.numpy.save_file(more, tmp_path / 'adapter_model.safetensors')
  with pytest.raises(UserError, match=facts('base_model.lm_head.weight', "'prompt_embeddings'")):
    read_peft(tmp_path)


def test_every_field_of_peft_has_a_rule(tmp_path):
  kinds = (peft.PromptTuningConfig, peft.PromptEncoderConfig, peft.PrefixTuningConfig)
  for kind in (*kinds, peft.MultitaskPromptTuningConfig):
    assert {f.name for f in dataclasses.fields(kind)} - FIELDS.keys() == set()
  with pytest.warns(UserWarning, match=facts('adapter_config.json', '1 fields', 'new_scale')):
    read_peft(folder(tmp_path, np.concatenate([ROWS, ROWS]), new_scale=2))


def test_files_that_are_missing_or_damaged(tmp_path):
  weights, config = tmp_path / 'adapter_model.safetensors', tmp_path / 'adapter_config.json'
  with pytest.raises(UserError, match=r'adapter_config\.json'):
    read_peft(tmp_path)
  matrix = np.concatenate([ROWS, ROWS])
  folder(tmp_path, matrix)
  whole = weights.read_bytes()
  for cut in (0, 5, 60, -1):
    weights.write_bytes(whole[:cut])
    with pytest.raises(UserError, match=facts('adapter_model.safetensors', 'damaged')):
      read_peft(tmp_path)
  weights.unlink()
  (tmp_path / 'adapter_model.bin').write_bytes(b'')
  with pytest.raises(UserError, match=facts('adapter_model.bin', 'safe_serialization=True')):
    read_peft(tmp_path)
  safetensors.numpy.save_file({'lora_A.weight': matrix}, weights)
  with pytest.raises(UserError, match=facts('lora_A.weight', "'prompt_embeddings'")):
    read_peft(tmp_path)
  matrix[1, 2] = np.inf
  with pytest.raises(UserError, match=facts('infinity', '1', 'prompt_embeddings')):
    read_peft(folder(tmp_path, matrix))
  for text, match in (('{', 'JSON'), ('[]', 'JSON object')):
    config.write_text(text)
    with pytest.raises(UserError, match=match):
      read_peft(tmp_path)
