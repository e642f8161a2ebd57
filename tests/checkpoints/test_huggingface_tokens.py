"""The vocabulary of a Hugging Face folder is what all of its files say, or refused by name."""

import io
import json

import pytest
import sentencepiece
import transformers

from prompt_jax.checkpoints.formats.huggingface_tokens import vocabulary
from prompt_jax.data.vocabulary import SentencePieceVocabulary, load_vocabulary
from prompt_jax.errors import UserError
from tests.shared import facts

T5 = {'model_type': 't5'}
N = 22  # pieces


def trained(*symbols: str) -> bytes:
  """A SentencePiece model of N pieces and the symbols."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['a farmer sold the red basket to my sister'] * 5), model_writer=model,
    vocab_size=N + len(symbols), pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    minloglevel=2, num_threads=1, user_defined_symbols=list(symbols),
  )  # fmt: skip
  return model.getvalue()


@pytest.fixture(scope='module')
def pieces() -> bytes:
  return trained()


@pytest.fixture
def folder(tmp_path, pieces):
  (tmp_path / 'config.json').write_text(json.dumps(T5))
  (tmp_path / 'spiece.model').write_bytes(pieces)
  say(tmp_path, tokenizer_class='T5Tokenizer', extra_ids=100)
  return tmp_path


def say(folder, file='tokenizer_config.json', **changes):
  path = folder / file
  about = json.loads(path.read_text()) if path.exists() else {}
  path.write_text(json.dumps({**about, **changes}))


def theirs(folder):
  return transformers.T5Tokenizer.from_pretrained(folder)


@pytest.mark.parametrize('count', [0, 1, 96, 100, 300])
def test_any_number_of_sentinels(count, folder):
  say(folder, extra_ids=count)
  words, hf = vocabulary(folder, T5), theirs(folder)
  assert words.size == len(hf)
  assert len(words.sentinels) == words.extra_ids == count
  text = ' '.join(f'the <extra_id_{i}>' for i in range(count))
  assert words.encode(text) == hf(text, add_special_tokens=False).input_ids
  assert list(words.sentinels) == [words.size - 1 - i for i in range(count)]


def test_the_number_may_be_told_by_the_tokens(folder):
  tokens = [f'<extra_id_{i}>' for i in range(7)]
  say(folder, extra_ids=None, additional_special_tokens=tokens)
  assert vocabulary(folder, T5).extra_ids == 7
  say(folder, extra_ids=8)
  with pytest.raises(UserError, match=facts('extra_ids', '8', '7')):
    vocabulary(folder, T5)


def test_a_vocabulary_with_its_own_sentinels(folder):
  """mT5 says extra_ids 0; here they stand in front, counting up."""
  own = [f'▁<extra_id_{i}>' for i in range(3)]
  (folder / 'spiece.model').write_bytes(trained(*own))
  for said in ({'extra_ids': 0}, {'extra_ids': None}):
    say(folder, **said, additional_special_tokens=[f'<extra_id_{i}>' for i in range(3)])
    words = vocabulary(folder, T5)
    assert words.extra_ids == 0
    assert words.sentinels == (3, 4, 5)
    assert words.encode('<extra_id_1>') == [4]
  say(folder, extra_ids=3)
  with pytest.raises(UserError, match=facts('own sentinels', '3', 'extra_ids')):
    vocabulary(folder, T5)


@pytest.mark.parametrize(
  ('file', 'about'),
  [
    ('added_tokens.json', {'{': N + 100, '[ANS]': N + 101}),
    ('tokenizer_config.json', {'additional_special_tokens': ['{', '[ANS]']}),
    ('tokenizer_config.json', {'extra_special_tokens': {'a': '{', 'b': '[ANS]'}}),
    ('tokenizer_config.json',
     {'added_tokens_decoder': {str(N + 100): {'content': '{'}, str(N + 101): '[ANS]'}}),
    ('special_tokens_map.json', {'additional_special_tokens': ['{', {'content': '[ANS]'}]}),
    ('tokenizer_config.json', {'bos_token': '{', 'mask_token': '[ANS]'}),
  ],
)  # fmt: skip
def test_added_tokens_are_refused_by_name(file, about, folder):
  say(folder, file, **about)
  with pytest.raises(UserError, match=facts('2 tokens', "'{'", "'[ANS]'", file)) as e:
    vocabulary(folder, T5)
  assert e.value.parameters == ('vocabulary',)
  # The remedy that it gives.
  assert load_vocabulary(f'{folder / "spiece.model"}:100').size == N + 100


def test_tokens_of_the_vocabulary_may_be_named(folder):
  say(
    folder, pad_token='<pad>', eos_token={'content': '</s>'}, unk_token='<unk>', bos_token='<pad>'
  )
  decoder = {
    '0': {'content': '<pad>'},
    '1': {'content': '</s>'},
    str(N + 99): {'content': '<extra_id_0>'},
  }
  say(folder, added_tokens_decoder=decoder)
  say(folder, 'added_tokens.json', **{'<extra_id_99>': N})
  assert vocabulary(folder, T5).size == N + 100


def test_what_transformers_saves_again(folder, tmp_path):
  theirs(folder).save_pretrained(tmp_path / 'again')
  words = vocabulary(tmp_path / 'again', T5)
  assert words.extra_ids == 100
  assert words.encode('the <extra_id_7> basket') == vocabulary(folder, T5).encode(
    'the <extra_id_7> basket'
  )


@pytest.mark.parametrize(
  ('file', 'about', 'words'),
  [
    ('added_tokens.json', {'<extra_id_0>': N}, ('<extra_id_0>', str(N), str(N + 99))),
    ('tokenizer_config.json', {'pad_token': '</s>'}, ('</s>', '0', '1')),
    ('tokenizer_config.json', {'eos_token': '[SEP]'}, ('[SEP]', '1')),
    ('tokenizer_config.json', {'extra_ids': '100'}, ('extra_ids', '100')),
    ('tokenizer_config.json', {'extra_ids': -1}, ('extra_ids', '-1')),
    (
      'tokenizer_config.json',
      {'tokenizer_class': 'GPT2Tokenizer'},
      ('GPT2Tokenizer', 'T5Tokenizer'),
    ),
    ('tokenizer_config.json', {'sp_model_kwargs': {'enable_sampling': True}}, ('sp_model_kwargs',)),
    ('tokenizer_config.json', {'do_lower_case': True}, ('do_lower_case',)),
    ('tokenizer_config.json', {'add_prefix_space': False}, ('add_prefix_space',)),
    ('tokenizer_config.json', {'added_tokens_decoder': [1]}, ('added_tokens_decoder', '[1]')),
    ('tokenizer_config.json', {'added_tokens_decoder': {'a': '<pad>'}}, ('added_tokens_decoder',)),
    ('tokenizer_config.json', {'additional_special_tokens': 'x'}, ('additional_special_tokens',)),
    ('tokenizer_config.json', {'pad_token': 3}, ('pad_token', '3')),
    ('added_tokens.json', {'{': 'x'}, ("'{'", "'x'")),
  ],
)
def test_what_contradicts_is_named(file, about, words, folder):
  say(folder, file, **about)
  with pytest.raises(UserError, match=facts(*words)):
    vocabulary(folder, T5)


def test_two_files_of_two_vocabularies(folder, tmp_path):
  theirs(folder).save_pretrained(tmp_path / 'again')
  (folder / 'tokenizer.json').write_bytes((tmp_path / 'again/tokenizer.json').read_bytes())
  assert vocabulary(folder, T5).size == N + 100
  about = json.loads((folder / 'tokenizer.json').read_text('utf-8'))
  about['model']['vocab'][7][0] = 'other'
  (folder / 'tokenizer.json').write_text(json.dumps(about))
  with pytest.raises(UserError, match=facts('tokenizer.json', 'spiece.model', '7', "'other'")):
    vocabulary(folder, T5)


def test_added_tokens_of_a_tokenizer_json(folder, tmp_path):
  made = theirs(folder)
  made.add_tokens(['{'])
  made.save_pretrained(tmp_path / 'again')
  with pytest.raises(UserError, match=facts('1 tokens', "'{'", str(N + 100), 'tokenizer.json')):
    vocabulary(tmp_path / 'again', T5)


def test_bytes(folder, tmp_path):
  transformers.ByT5Tokenizer().save_pretrained(tmp_path / 'bytes')
  words = vocabulary(tmp_path / 'bytes', T5)
  assert words.size == 384
  say(folder, tokenizer_class=None)
  assert isinstance(vocabulary(folder, T5), SentencePieceVocabulary)
  (folder / 'tokenizer_config.json').write_text('{}')
  assert vocabulary(folder, {**T5, 'tokenizer_class': 'ByT5Tokenizer'}).size == 384
