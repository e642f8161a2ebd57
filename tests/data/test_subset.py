"""Few shots of each class and wrong labels."""

import collections
import dataclasses
import random

import numpy as np
import pytest

from prompt_jax.data.example import UNKNOWN, Lengths, TextExample, text_task
from prompt_jax.data.mixture import Mixing
from prompt_jax.data.subset import few_shot, noisy_labels
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from tests.shared import facts

BYTES, LENGTHS = ByteVocabulary(), Lengths(30, 10)
LABELS = ('yes', 'no', 'maybe')
ROWS = [TextExample(f'text {i}', LABELS[i % 3], i % 3) for i in range(60)]


def task(rows=ROWS, **splits):
  loaded = {split: lambda found=found: found for split, found in {'train': rows, **splits}.items()}
  return text_task('t', loaded, LABELS, ['accuracy'])


def load(found, split='train'):
  return found.load(split, BYTES, LENGTHS)


def texts(examples):
  return [e.inputs_text for e in examples]


def test_as_many_of_each_class_to_train_on_and_others_to_select_by():
  draws = set()
  for seed in range(5):
    found = few_shot(task(validation=ROWS[:9]), 4, seed)
    train, validation = load(found), load(found, 'validation')
    for part in (train, validation):
      assert collections.Counter(e.label for e in part) == {0: 4, 1: 4, 2: 4}
    assert not set(texts(train)) & set(texts(validation))
    assert texts(load(few_shot(task(), 4, seed))) == texts(train)
    draws.add(tuple(texts(train)))
    assert texts(load(found, 'test')) == texts(load(task(validation=ROWS[:9]), 'validation'))
  assert len(draws) == 5


def test_the_order_of_the_file_does_not_matter():
  mixed = random.Random(0).sample(ROWS, len(ROWS))
  assert texts(load(few_shot(task(), 3))) == texts(load(few_shot(task(mixed), 3)))


def test_a_public_test_split_without_labels_gives_way_to_the_validation_split():
  hidden = [TextExample('?', UNKNOWN, None)]
  found = few_shot(task(validation=ROWS[:9], test=hidden), 2)
  assert len(load(found, 'test')) == 9
  found = few_shot(task(validation=ROWS[:9], test=ROWS[:6]), 2)
  assert len(load(found, 'test')) == 6


def test_equal_texts_are_one_example():
  rows = [TextExample(f'text {i // 4}', 'yes', 0) for i in range(40)]
  found = few_shot(task(rows), 5)
  both = [*texts(load(found)), *texts(load(found, 'validation'))]
  assert len(set(both)) == 10
  with pytest.raises(UserError, match=facts('10', "'yes'", '6', '12')):
    load(few_shot(task(rows), 6))


@pytest.mark.parametrize('share', [0.0, 0.25, 1.0])
def test_a_share_of_the_labels_is_wrong_and_the_rest_is_as_it_was(share):
  plain, noisy = load(task()), load(noisy_labels(task(), share, seed=2))
  wrong = [(a, b) for a, b in zip(plain, noisy, strict=True) if a.label != b.label]
  assert len(wrong) == share * len(ROWS)
  for a, b in zip(plain, noisy, strict=True):
    assert a.inputs_text == b.inputs_text
    assert b.targets_text == LABELS[b.label]
    assert b.targets.tolist() == [*BYTES.encode(b.targets_text), 1]
    assert b.fields.get('true_label', b.label) == a.label
  assert len({b.label for _, b in wrong}) == (3 if share else 0)
  again = load(noisy_labels(task(), share, seed=2))
  assert [e.label for e in again] == [e.label for e in noisy]
  np.testing.assert_array_equal(load(task(test=ROWS), 'test')[0].targets, plain[0].targets)


def test_what_cannot_be_drawn_is_refused():
  for call, says in (
    (lambda: few_shot(task(), 0), 'at least 1'),
    (lambda: noisy_labels(task(), 1.5), 'from 0 to 1'),
    (lambda: noisy_labels(dataclasses.replace(task(), labels=None), 0.5), 'labels'),
    (lambda: few_shot(dataclasses.replace(task(), splits={}), 2), 'training split'),
    (lambda: few_shot(dataclasses.replace(task(), mixing=Mixing()), 2), 'one task'),
  ):
    with pytest.raises(UserError, match=says):
      call()
