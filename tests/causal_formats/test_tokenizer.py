"""A tokenizer's own ids become ours, and text stays text."""

import json

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.causal_formats import huggingface
from prompt_jax.causal_formats.tokenizer import (
  TokenIds,
  TokenizerVocabulary,
  frame,
  order,
  read,
)
from prompt_jax.checkpoints.on_disk import read_json
from prompt_jax.errors import UserError
from tests.shared import facts
from tests.tiny_llama import bpe


@pytest.fixture(scope='module')
def words(folder):
  return huggingface.vocabulary(folder, read_json(folder / 'config.json'))


def test_padding_and_the_end_change_places_with_0_and_1():
  np.testing.assert_array_equal(order(6, pad=0, eos=2), [0, 2, 1, 3, 4, 5])
  np.testing.assert_array_equal(order(6, pad=4, eos=5), [4, 5, 2, 3, 0, 1])
  np.testing.assert_array_equal(order(6, pad=1, eos=0), [1, 0, 2, 3, 4, 5])


@given(st.integers(2, 40), st.data())
def test_every_id_keeps_a_place(rows, data):
  pad = data.draw(st.integers(0, rows - 1))
  eos = data.draw(st.integers(0, rows - 1).filter(lambda i: i != pad))
  found = order(rows, pad, eos)
  assert sorted(found) == list(range(rows))
  assert (found[0], found[1]) == (pad, eos)


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(codec='utf-8'), max_size=40))
def test_text_is_cut_as_by_transformers_and_comes_back(folder, words, text):
  theirs = transformers.AutoTokenizer.from_pretrained(folder)
  ids = words.encode(text)
  assert words.decode(ids) == text
  plain = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
  np.testing.assert_array_equal(order(words.size, words.pad, words.eos)[ids], plain)


def test_a_token_in_text_stays_text(words):
  ids = words.encode('a <|im_end|> b')
  assert not {0, 1, *words.ids_of('<|im_start|>')} & set(ids)
  assert words.decode(ids) == 'a <|im_end|> b'
  assert words.decode([*words.encode('good'), 1, *words.encode('bad')]) == 'good'


def test_a_chat_is_framed_as_its_template_says(folder, words):
  around = frame(words)
  chat = transformers.AutoTokenizer.from_pretrained(folder)
  chat.chat_template = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
  )
  told = [{'role': 'user', 'content': 'it was good'}]
  theirs = chat.apply_chat_template(told, tokenize=True, return_dict=False)
  ours = [*around.before, *words.encode('it was good'), words.eos_id, *around.between]
  np.testing.assert_array_equal(order(words.size, words.pad, words.eos)[ours], theirs)
  assert around.reads_end


def test_a_plain_model_has_a_new_line_behind_its_input(folder):
  plain = TokenizerVocabulary(
    (folder / 'tokenizer.json').read_bytes(), 'tokenizer.json', pad=2, eos=0
  )
  around = frame(plain)
  assert (around.before, around.between) == ([], plain.encode('\n'))
  assert not around.reads_end


@pytest.mark.parametrize(
  ('change', 'says'),
  [(dict(pad=2, eos=2), ['2']), (dict(pad=0, eos=9999), ['9999']), (dict(pad=-1, eos=2), ['-1'])],
)
def test_ids_that_are_none_are_refused(folder, change, says):
  with pytest.raises(UserError, match=facts(*says)):
    TokenizerVocabulary(read(folder / 'tokenizer.json'), 'here', **change)


RAW = bpe().to_str().encode()


@pytest.mark.parametrize(
  ('change', 'says'),
  [
    (lambda about: about['model'].update(type='Unigram'), []),
    (lambda about: about.update(pre_tokenizer=None), ['BPE']),  # no bytes: not every text
  ],
)
def test_another_kind_of_tokenizer_is_refused(change, says):
  about = json.loads(RAW)
  change(about)
  with pytest.raises(UserError, match=facts('tokenizer.json', *says)):
    TokenizerVocabulary(json.dumps(about).encode(), 'tokenizer.json', 0, 2)


def test_a_damaged_or_missing_file_is_told(tmp_path):
  with pytest.raises(UserError, match=facts('tokenizer.json')):
    TokenizerVocabulary(b'{"version": "1.0"', 'tokenizer.json', 0, 1)
  with pytest.raises(UserError, match=facts('tokenizer.json')):
    read(tmp_path / 'absent' / 'tokenizer.json')


def test_padding_is_a_token_that_stands_for_nothing_else():
  ids, tokens = TokenIds(RAW, 'here'), json.loads(RAW)
  rows = max(tokens['model']['vocab'].values()) + 1
  assert ids.choose_pad([2, 0], eos=2, rows=rows) == 0  # padded with the end: what is unknown
  assert ids.choose_pad([None, None], eos=2, rows=rows + 5) == rows  # a row without a token
  assert ids.choose_pad([None, None], eos=2, rows=rows) == 0  # a special token that is not used
  with pytest.raises(UserError, match='pad'):
    ids.choose_pad([None, None], eos=0, rows=rows)
  spare = TokenizerVocabulary(RAW, 'here', rows, 2)
  assert spare.decode(spare.encode('it was bad')) == 'it was bad'
  assert 0 not in spare.encode('it was bad')


def test_ids_beyond_the_table_are_told():
  with pytest.raises(UserError, match=facts('300', '64')):
    order(64, pad=300, eos=1)
