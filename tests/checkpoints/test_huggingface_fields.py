"""Every field that a Hugging Face folder of a T5 can have is used, without effect, or refused."""

import dataclasses
import json

import pytest
import transformers

from prompt_jax.checkpoints.backbone import find
from prompt_jax.checkpoints.formats import huggingface_fields as fields
from prompt_jax.checkpoints.formats.fields import READ, Only, Usual, check
from prompt_jax.checkpoints.formats.huggingface import config_to_huggingface
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from tests.shared import facts

CONFIG = T5Config(40, 8, 3, 4, 2, 2, 12)
# Fields of published folders that older releases wrote, and newer ones no longer have.
OLD_CONFIG = {
  'n_positions', 'output_past', 'task_specific_params', 'gradient_checkpointing', 'torch_dtype',
  'tokenizer_class', 'finetuning_task', 'prefix', 'torchscript', 'use_bfloat16', 'num_labels',
  'pruned_heads', 'tie_encoder_decoder', 'cross_attention_hidden_size', 'add_cross_attention',
  'num_beams', 'max_length', 'no_repeat_ngram_size', 'early_stopping', 'bad_words_ids',
  'sep_token_id', 'is_gated_act', 'dense_act_fn', 'quantization_config', 'auto_map',
  'hidden_size', 'num_hidden_layers', 'num_attention_heads', 'head_dim',
}  # fmt: skip
OLD_TOKENIZER = {
  'extra_ids', 'additional_special_tokens', 'special_tokens_map_file', 'name_or_path',
  'model_max_length', 'sp_model_kwargs', 'legacy', 'clean_up_tokenization_spaces', 'use_fast',
  'added_tokens_decoder', 'add_prefix_space', 'tokenizer_file', 'split_special_tokens',
  'padding_side', 'truncation_side', 'chat_template', 'eos_token', 'unk_token', 'pad_token',
  'bos_token', 'sep_token', 'cls_token', 'mask_token', 'tokenizer_class', 'processor_class',
}  # fmt: skip


@pytest.mark.parametrize('kind', ['T5', 'MT5', 'UMT5'])
def test_every_field_of_a_configuration_has_a_rule(kind):
  made = getattr(transformers, f'{kind}Config')
  known = {f.name for f in dataclasses.fields(made)} | made().to_dict().keys() | OLD_CONFIG
  assert known - fields.CONFIG.keys() == set()


def test_every_field_of_a_generation_config_has_a_rule():
  known = transformers.GenerationConfig().to_dict().keys()
  assert known - fields.GENERATION.keys() == set()


@pytest.mark.parametrize('kind', ['T5Tokenizer', 'ByT5Tokenizer'])
def test_every_field_of_a_tokenizer_has_a_rule(kind, tmp_path):
  getattr(transformers, kind)().save_pretrained(tmp_path)
  written = json.loads((tmp_path / 'tokenizer_config.json').read_text())
  assert (written.keys() | OLD_TOKENIZER) - fields.TOKENIZER.keys() == set()


@pytest.mark.parametrize(
  'rules', [fields.CONFIG, fields.GENERATION, fields.TOKENIZER, fields.SPECIAL_TOKENS_MAP]
)
def test_a_field_is_used_or_refused_or_says_why_not(rules):
  for name, rule in rules.items():
    if rule != READ and isinstance(rule, str):
      assert len(rule.split()) > 2, name


@pytest.fixture
def folder(tmp_path):
  """A folder that is read as far as its settings; `say` changes them."""
  (tmp_path / 'config.json').write_text(json.dumps(config_to_huggingface(CONFIG)))
  return tmp_path


def say(folder, file='config.json', **changes):
  path = folder / file
  about = json.loads(path.read_text()) if path.exists() else {}
  path.write_text(json.dumps({**about, **changes}))


@pytest.mark.parametrize(
  ('file', 'name'),
  [
    (file, name)
    for file, rules in (
      ('config.json', fields.CONFIG),
      ('generation_config.json', fields.GENERATION),
    )
    for name, rule in rules.items()
    if isinstance(rule, Only)
  ],
)
def test_another_value_is_refused_by_name(file, name, folder):
  """Of every field that has but one value here."""
  find(str(folder))
  say(folder, file, **{name: [7]})
  with pytest.raises(UserError, match=facts(file, name, '[7]')):
    find(str(folder))


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('model_type', 'bart'), ('vocab_size', '40'), ('d_model', 0), ('num_layers', 2.0),
    ('num_decoder_layers', True), ('feed_forward_proj', 'gated-silu'), ('num_heads', None),
    ('dense_act_fn', 'gelu'), ('is_gated_act', False), ('tie_word_embeddings', 'no'),
    ('scale_decoder_outputs', 1), ('architectures', ['T5EncoderModel']), ('architectures', 'T5'),
    ('head_dim', 8), ('relative_attention_num_buckets', []), ('eos_token_id', [1, 5]),
    ('relative_attention_max_distance', -1), ('pad_token_id', False),
  ],
)  # fmt: skip
def test_a_field_that_is_read_is_held_to_what_it_may_be(name, value, folder):
  say(folder, **{name: value})
  with pytest.raises(UserError, match=facts(name if name != 'model_type' else 'type')):
    find(str(folder))


def test_where_decoding_begins(folder):
  """transformers begins with bos_token_id where decoder_start_token_id is not said."""
  say(folder, bos_token_id=3)
  find(str(folder))
  say(folder, decoder_start_token_id=None)
  with pytest.raises(UserError, match=facts('bos_token_id', '3', 'decoder_start_token_id')):
    find(str(folder))
  say(folder, 'generation_config.json', decoder_start_token_id=0)
  find(str(folder))
  say(folder, 'generation_config.json', decoder_start_token_id=5)
  with pytest.raises(UserError, match=facts('generation_config.json', 'decoder_start_token_id')):
    find(str(folder))


def test_other_names_of_a_size(folder):
  about = json.loads((folder / 'config.json').read_text())
  about['hidden_size'] = about.pop('d_model')
  (folder / 'config.json').write_text(json.dumps(about))
  find(str(folder))
  say(folder, d_model=16)
  with pytest.raises(UserError, match=facts('hidden_size', 'd_model', '16')):
    find(str(folder))


def test_unknown_fields_are_named_in_one_warning(folder):
  say(folder, my_scale=2.0, my_other={'a': 1}, my_empty=None)
  with pytest.warns(
    UserWarning, match=facts('config.json', '2 fields', 'my_scale', 'my_other')
  ) as w:
    find(str(folder))
  assert len(w) == 1
  assert 'my_empty' not in str(w[0].message)


def test_settings_of_decoding_are_named_in_one_warning(folder):
  usual = transformers.GenerationConfig(num_beams=1, do_sample=False).to_dict()
  say(folder, 'generation_config.json', **usual)
  find(str(folder))
  say(folder, 'generation_config.json', num_beams=4, length_penalty=0.6, max_length=200)
  with pytest.warns(UserWarning, match=facts('2 settings', 'num_beams=4', 'length_penalty=0.6')):
    find(str(folder))


def test_true_is_not_1():
  rules = {'a': Only((1,)), 'b': Usual((1,))}
  check({'a': 1, 'b': 1}, rules, 'x')
  with pytest.raises(UserError, match=facts('a is True', '1')):
    check({'a': True}, rules, 'x')
  with pytest.warns(UserWarning, match='b=True'):
    check({'b': True}, rules, 'x')
