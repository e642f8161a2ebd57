"""Trained on one language, measured on others."""

import collections

import pytest

from prompt_jax.data.example import Lengths
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from prompt_jax.tasks import find
from tests.shared import facts
from tests.tasks import published

BYTES = ByteVocabulary()
LENGTHS = Lengths(200, 30)


def write(folder, path, rows):
  file = folder / path
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_text(published.lines(*rows))


@pytest.fixture
def folder(tmp_path):
  for language, count in (('english', 4), ('ngaju', 3), ('javanese', 2)):
    rows = [{'text': f'{language} {i}', 'label': 'neutral', 'idx': i} for i in range(count)]
    for split in ('train', 'test') if language != 'ngaju' else ('test',):
      write(tmp_path, f'nusax_senti/{split}.{language}.jsonl', rows)
  choice = {'premise': 'P', 'choice1': 'A', 'choice2': 'B', 'question': 'cause', 'label': 0}
  write(tmp_path, 'copa/train.jsonl', [choice] * 3)
  write(tmp_path, 'copa/validation.jsonl', [choice] * 2)
  write(tmp_path, 'xcopa/test.qu.jsonl', [choice])
  write(tmp_path, 'xcopa/test.et.jsonl', [choice] * 2)
  file = tmp_path / 'squad' / 'train-v1.1.json'
  file.parent.mkdir()
  file.write_text(published.squad())
  return str(tmp_path)


def count(task, split):
  return collections.Counter(e.task for e in task.load(split, BYTES, LENGTHS))


def test_all_variants_that_are_there(folder):
  task = find.find('nusax_senti.english:all', folder)
  assert task.source == 'nusax_senti.english'
  assert count(task, 'train').keys() == {'nusax_senti.english'}
  assert count(task, 'validation').keys() <= {'nusax_senti.english'}
  assert count(task, 'test') == {
    'nusax_senti.english': 4,
    'nusax_senti.javanese': 2,
    'nusax_senti.ngaju': 3,
  }
  bare = find.find('taskless_nusax_senti.english:all', folder)
  assert {p.name for p in bare.parts} == {f'taskless_{p.name}' for p in task.parts}
  assert all(e.inputs_text.startswith('text:') for e in bare.load('test', BYTES, LENGTHS))


def test_named_variants_and_other_sets(folder):
  task = find.find('nusax_senti.english:ngaju', folder)
  assert [p.name for p in task.parts] == ['nusax_senti.english', 'nusax_senti.ngaju']
  task = find.find('copa:xcopa', folder)
  assert count(task, 'test') == {'copa': 2, 'xcopa.et': 2, 'xcopa.qu': 1}
  task = find.find('copa:xcopa.qu', folder)
  assert count(task, 'test') == {'copa': 2, 'xcopa.qu': 1}
  for name in ('taskless_copa:xcopa.qu', 'taskless_copa:taskless_xcopa.qu'):
    bare = find.find(name, folder)
    assert count(bare, 'test') == {'taskless_copa': 2, 'taskless_xcopa.qu': 1}
    assert {e.inputs_text for e in bare.load('test', BYTES, LENGTHS)} == {
      'choice1: A choice2: B premise: P question: cause'
    }


def test_what_cannot_be_transferred_is_refused(folder):
  for name, says in (
    ('copa:nusax_senti.english', facts('copa', 'choice1, choice2', 'nusax')),
    ('nusax_senti.ngaju:english', facts('training', 'test')),
    ('copa:copa', facts('copa:copa')),
    ('copa:all', facts('copa', 'variants')),
    ('nusax_senti.english:balinese', facts('nusax_senti.balinese')),
    ('copa:xnli', facts('xnli.ar')),
  ):
    with pytest.raises(UserError, match=says):
      find.find(name, folder)
