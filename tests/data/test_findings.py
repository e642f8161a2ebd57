"""What is odd about examples is said in a line with the count, whatever they were read from."""

import json
import warnings

import pytest

from prompt_jax.data.example import Lengths
from prompt_jax.data.local_file import local_task
from prompt_jax.data.vocabulary import ByteVocabulary, SentencePieceVocabulary
from prompt_jax.errors import UserError
from prompt_jax.evaluation import findings
from tests.data.conftest import trained_vocabulary
from tests.shared import mentions

LENGTHS = Lengths(64, 32)


def rows(pairs):
  return [{'text': text, 'label': label} for text, label in pairs]


def found(words=None, **data):
  """The findings of a task from rows."""
  words = words or ByteVocabulary()
  task = local_task(**data)
  splits = {s: task.load(s, words, LENGTHS) for s in task.splits}
  return findings.findings(task, splits, words, LENGTHS.targets)


CLEAN = [(f'film {i}', 'bad' if i % 3 else 'good') for i in range(30)]
TEST = rows([('a film', 'good'), ('b film', 'bad')])


def test_nothing_is_said_of_plain_examples():
  assert found(train=rows(CLEAN), test=TEST) == []


def test_words_for_a_missing_value_are_counted():
  train = rows([*CLEAN, ('nan', 'bad'), ('NaN', 'good'), ('c', 'None'), ('nantes', 'bad')])
  texts, labels = found(train=train, validation=TEST)
  assert mentions(texts, 'rows, train', '2 of 34 texts', "'nan', 'NaN'")
  assert mentions(labels, 'rows, train', '1 of 34 labels', "'None'")
  texts = rows([('x', 'y'), ('z', 'null')])
  (said,) = found(test=[{'inputs': r['text'], 'targets': r['label']} for r in texts])
  assert mentions(said, '1 of 2 targets', "'null'")


def test_texts_with_several_labels_are_counted():
  train = rows([*CLEAN, ('film 1', 'good'), ('film 1', 'bad'), ('film 2', 'good')])
  (said,) = found(train=train, validation=TEST)
  assert mentions(said, 'train', '2 texts', 'in 5 of 33 rows', "'film 1'", 'bad, good')


def test_a_text_may_have_several_targets_where_there_are_no_labels():
  assert found(test=[{'inputs': 'a', 'targets': 'b'}, {'inputs': 'a', 'targets': 'c'}]) == []


@pytest.mark.parametrize(
  ('one', 'other'), [('Good', 'good'), ('very good', 'very  good'), ('1', '1.0'), ('ﬁne', 'fine')]
)
def test_labels_that_are_written_in_two_ways_are_counted(one, other):
  pairs = [(f'film {i}', (one, other, 'x')[i % 3]) for i in range(30)]
  (said,) = found(train=rows(pairs), test=rows([('y', 'x')]), validation=rows([('z', one)]))
  assert mentions(said, f'{one!r} (11 rows)', f'{other!r} (10 rows)')


def test_texts_of_two_splits_are_counted():
  train = rows(CLEAN)
  said = found(train=train, validation=train, test=[*TEST, *train[:3]])
  assert len(said) == 3
  assert mentions(said[0], '30 of 30 validation', 'in train')
  assert mentions(said[1], '3 of 5 test', 'in train')
  assert mentions(said[2], '3 of 5 test', 'in validation')


def test_targets_that_the_vocabulary_cannot_write_are_counted(tmp_path):
  words = SentencePieceVocabulary(trained_vocabulary(tmp_path))  # without a piece for each byte
  pairs = [('a', '{story}'), ('b', 'story'), ('c', 'story  '), ('d', 'a  story')]
  data = [{'inputs': a, 'targets': b} for a, b in pairs]
  (said,) = found(words, test=data)
  assert mentions(said, 'test', '2 of 4 targets', 'vocabulary', '{story}', '⁇')
  assert found(test=data) == []


def test_of_targets_that_are_cut_nothing_is_said(vocabulary):
  assert found(vocabulary, test=[{'inputs': 'a', 'targets': 'the house ' * 40}]) == []


def test_each_is_one_warning():
  task = local_task(rows([*CLEAN, ('nan', 'bad')]), validation=TEST)
  splits = {s: task.load(s, ByteVocabulary(), LENGTHS) for s in task.splits}
  with pytest.warns(UserWarning, match='1 of 31 texts'):
    findings.warn(task, splits, ByteVocabulary(), LENGTHS.targets)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    findings.warn(task, {'validation': splits['validation']}, ByteVocabulary(), LENGTHS.targets)


@pytest.mark.parametrize('form', ['jsonl', 'pandas', 'datasets', 'list'])
def test_the_same_is_said_whatever_holds_the_rows(form, tmp_path):
  train = rows([*CLEAN, ('nan', 'bad'), ('film 1', 'good')])
  if form == 'jsonl':
    path = tmp_path / 'a.jsonl'
    path.write_text('\n'.join(map(json.dumps, train)))
    train = str(path)
  elif form == 'pandas':
    train = pytest.importorskip('pandas').DataFrame(train)
  elif form == 'datasets':
    train = pytest.importorskip('datasets').Dataset.from_list(train)
  missing, contradictory = found(train=train, validation=TEST)
  assert mentions(missing, '1 of 32 texts')
  assert mentions(contradictory, '1 text', '2 of 32 rows')


def test_nan_of_a_number_is_a_missing_value_in_every_form():
  pandas, datasets = pytest.importorskip('pandas'), pytest.importorskip('datasets')
  values = {'text': ['a', 'b', 'c'], 'label': [1.0, float('nan'), 0.0]}
  for data in (values, pandas.DataFrame(values), datasets.Dataset.from_dict(values)):
    with pytest.raises(UserError, match="rows:2: 'label'"):
      local_task(test=data)
