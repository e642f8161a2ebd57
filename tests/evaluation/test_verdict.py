"""Whether what was tuned is better than a baseline, and what is said if not."""

import dataclasses

import numpy as np
import pytest

from prompt_jax.data.example import Lengths, TextExample, text_task
from prompt_jax.data.mixture import Mixing, mixture
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.evaluation.comparison import to_try, verdicts
from prompt_jax.evaluation.findings import majority_predictions
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.evaluation.suite import task_facts
from tests.shared import mentions

LABELS = ('bad', 'good')
FACTS = {'reviews': {'metrics': ['accuracy'], 'labels': LABELS}}


def answers(right, task=None):
  """Predictions that are right where `right` is true; the targets alternate."""
  rows = []
  for i, hit in enumerate(right):
    target = LABELS[i % 2]
    said = target if hit else LABELS[1 - i % 2]
    rows.append(Prediction(f'text {i}', target, said, bool(hit), {}, task=task))
  return rows


def shares(*counts, n=400):
  """For each count so many right answers, at places of their own."""
  rng = np.random.default_rng(0)
  return [np.isin(np.arange(n), rng.permutation(n)[:count]) for count in counts]


def test_as_good_as_the_baseline_is_no_better():
  same = answers([i % 2 for i in range(400)])
  (found,) = verdicts({'the majority class': same}, [same], FACTS)
  assert (found.tuned, found.of_baseline, found.interval) == (50.0, 50.0, (0.0, 0.0))
  assert not found.better
  assert mentions(str(found), 'is no better', 'the majority class', 'accuracy 50.0', '400')


def test_much_better_is_better():
  tuned, other = map(answers, shares(320, 200))
  (found,) = verdicts({'untuned': other}, [tuned], FACTS)
  assert found.better
  assert found.tuned - found.of_baseline == pytest.approx(30)
  low, high = found.interval
  assert 20 < low < 30 < high < 40


def test_a_difference_within_chance_is_said_to_be_that():
  tuned, other = map(answers, shares(204, 200))
  (found,) = verdicts({'untuned': other}, [tuned], FACTS)
  assert found.tuned > found.of_baseline
  assert not found.better
  assert mentions(str(found), 'may be no better', '51.0', '50.0', '+1.0')


def test_of_several_seeds_the_mean_counts():
  good, poor, other = map(answers, shares(320, 120, 200))
  (found,) = verdicts({'untuned': other}, [good, poor], FACTS)
  assert found.tuned == pytest.approx(100 * (320 + 120) / 2 / 400)


def test_each_of_several_tasks_has_its_own():
  facts = {'a': FACTS['reviews'], 'b': FACTS['reviews']}
  sides = [
    answers(first, 'a') + answers(second, 'b')
    for first, second in zip(shares(320, 200), reversed(shares(320, 200)), strict=True)
  ]
  found = verdicts({'untuned': sides[1]}, [sides[0]], facts)
  assert [(v.task, v.better) for v in found] == [('a', True), ('b', False)]
  assert mentions(str(found[1]), 'on b')


def test_one_example_has_no_interval():
  (found,) = verdicts({'untuned': answers([False])}, [answers([True])], FACTS)
  assert (found.interval, found.better) == (None, True)
  assert 'example' in str(found)


def task(name, common):
  """Nine examples, of which `common` have the label "good"."""
  rows = [TextExample(f'{name} {i}', LABELS[i < common], int(i < common)) for i in range(9)]
  return text_task(name, {'train': lambda: rows}, LABELS, ('accuracy',))


def test_the_majority_class_is_that_of_the_training_examples():
  train, test = task('a', 6), task('a', 2)
  load = lambda t: t.load('train', ByteVocabulary(), Lengths(20, 8))
  found = majority_predictions(load(train), load(test), train)
  assert {p.prediction for p in found} == {'good'}
  assert sum(p.correct for p in found) == 2


def test_each_task_of_a_mixture_has_its_own_majority():
  both = mixture([task('a', 6), task('b', 3)], Mixing())
  examples = both.load('train', ByteVocabulary(), Lengths(20, 8))
  found = majority_predictions(examples, examples, both)
  assert {(p.task, p.prediction) for p in found} == {('a', 'good'), ('b', 'bad')}
  # It is scored like any other system.
  by_task = verdicts({'same': found}, [found], task_facts(both))
  assert [v.of_baseline for v in by_task] == [pytest.approx(600 / 9)] * 2


def test_free_text_has_no_majority():
  free = dataclasses.replace(task('a', 6), labels=None)
  found = free.load('train', ByteVocabulary(), Lengths(20, 8))
  rows = [dataclasses.replace(e, label=None) for e in found]
  assert majority_predictions(rows, rows, free) is None


def test_what_to_try_follows_from_the_run():
  usual = {
    'recommended': '',
    'only_rows': False,
    'rising': False,
    'learning_rate': None,
    'cut': 0.0,
  }
  assert not mentions(to_try(**usual), 'steps')
  assert mentions(to_try(**{**usual, 'rising': True}), 'steps')
  assert mentions(to_try(**{**usual, 'recommended': 'prefix', 'only_rows': True}), 'prefix')
  assert mentions(to_try(**{**usual, 'only_rows': True}), 'prefix', 'deep')
  assert mentions(to_try(**{**usual, 'learning_rate': 0.3}), 'learning_rate', '0.1', '0.9')
  assert mentions(to_try(**{**usual, 'cut': 0.53}), 'input_length', '53 %')
