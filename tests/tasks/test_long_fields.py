"""Inputs that are too long lose of the field that may be cut, and not what stands behind it."""

import dataclasses
import string

import pytest

from prompt_jax.data.example import Lengths, tokenize
from prompt_jax.data.vocabulary import ByteVocabulary, load_vocabulary
from prompt_jax.tasks import catalogue, find, glue, super_glue
from prompt_jax.tasks.qa import QA
from tests.shared import shared

BYTES = ByteVocabulary()
FORMATS = {**glue.FORMATS, **super_glue.FORMATS, 'qa': QA}


def read(form, row, length, taskless=False):
  """What the model reads of a row."""
  examples = tokenize(form.examples(row, taskless), BYTES, Lengths(length, 64), 't')
  return [BYTES.decode(e.inputs.tolist()) for e in examples]


@pytest.mark.parametrize('taskless', [False, True])
def test_boolq_keeps_its_question(taskless):
  row = {'passage': 'p' * 400, 'question': 'is it so', 'label': 1}
  (found,) = read(super_glue.FORMATS['boolq'], row, 128, taskless)
  assert found.endswith('ppp question: is it so')
  assert len(found) == 127
  assert found.startswith('passage: ppp' if taskless else 'boolq passage: ppp')


@pytest.mark.parametrize('name', ['rte', 'mrpc', 'qqp', 'stsb', 'wnli'])
@pytest.mark.parametrize('long', [0, 1])
def test_of_a_pair_the_longer_one_is_cut(name, long):
  form = glue.FORMATS[name]
  columns = form.columns
  row = {columns[long]: 'l' * 200, columns[1 - long]: 'all of this', 'label': 1}
  (found,) = read(form, row, 100)
  assert 'all of this' in found
  assert 'lll' in found


def test_multirc_and_record_lose_of_the_paragraph():
  row = {
    'paragraph': 'p' * 300, 'question': 'who?', 'answer': 'she', 'label': 1,
    'idx': {'paragraph': 0, 'question': 0, 'answer': 0},
  }  # fmt: skip
  (found,) = read(super_glue.FORMATS['multirc'], row, 100)
  assert 'question: who? answer: she paragraph: ppp' in found


@pytest.mark.parametrize('name', sorted(FORMATS))
def test_the_field_that_may_be_cut_is_a_column(name):
  form = FORMATS[name]
  assert form.long in ('', *form.columns)


@pytest.mark.parametrize('name', sorted(catalogue.SETS))
def test_so_it_is_in_every_data_set(name):
  form = catalogue.SETS[name].form
  assert form.long in ('', *(n for _, n, _, _ in string.Formatter().parse(form.template) if n))


def test_a_format_without_the_tail_in_its_text_is_cut_at_the_end():
  form = dataclasses.replace(super_glue.FORMATS['boolq'], template='boolq {passage} / {question}')
  rows = form.examples({'passage': 'p' * 40, 'question': 'why', 'label': 0})
  assert rows[0].tail == ' / why'
  changed = dataclasses.replace(rows[0], inputs=rows[0].inputs.upper())
  upper = dataclasses.replace(form, write=lambda row, form: [dataclasses.replace(changed, tail='')])
  assert upper.examples({'passage': 'p' * 40, 'question': 'why', 'label': 0})[0].tail == ''


def test_the_shared_case():
  """boolq_question_cut: 10 of 10 examples had no question left."""
  folder = shared('cases', 'boolq_question_cut')
  vocabulary = load_vocabulary(folder / 'model/spiece.model')
  found = find.find('boolq', str(folder)).load('train', vocabulary, Lengths(128, 64))
  assert len(found) == 10
  for example in found:
    question = example.inputs_text.rpartition(' question: ')[2]
    assert vocabulary.decode(example.inputs.tolist()).endswith(f'question: {question}')
    assert len(example.inputs) <= 128
