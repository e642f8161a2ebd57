"""Comparisons against counts and sums by hand, and what they refuse."""

import dataclasses
import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.data.example import Task
from prompt_jax.errors import UserError
from prompt_jax.evaluation import comparison, metrics, suite
from prompt_jax.evaluation.predictions import Prediction
from tests.shared import facts

HITS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=25)


def said(hits, task=None):
  """Predictions of yes and no, right or wrong as given."""
  targets = ['yes' if i % 3 else 'no' for i in range(len(hits))]
  other = {'yes': 'no', 'no': 'yes'}
  return [
    Prediction(f'in {i}', t, t if hit else other[t], hit, {}, task=task)
    for i, (t, hit) in enumerate(zip(targets, hits, strict=True))
  ]


@settings(deadline=None)
@given(HITS)
def test_mcnemar_is_a_fair_coin_over_the_examples_that_one_alone_has_right(pairs):
  a, b = ([h[k] for h in pairs] for k in (0, 1))
  found = comparison.discordance(said(a), said(b))
  one, two = (sum(x and not y for x, y in pairs), sum(y and not x for x, y in pairs))
  assert (found.first, found.second) == (one, two)
  assert found.both + found.neither + one + two == len(pairs)
  n = one + two
  tail = sum(math.comb(n, k) for k in range(min(one, two) + 1)) / 2**n
  assert found.p == pytest.approx(min(1.0, 2 * tail))


def test_wrong_answers_that_differ_are_counted():
  first = [Prediction('x', 'a', p, False, {}) for p in ('b', 'c')]
  second = [Prediction('x', 'a', 'b', False, {}) for _ in range(2)]
  found = comparison.discordance(first, second)
  assert (found.neither, found.other, found.p) == (2, 1, 1.0)


def test_scores_differences_and_intervals_of_one_task():
  rng = np.random.default_rng(0)
  a, b = (said(rng.random(80) < share) for share in (0.6, 0.8))
  facts = {'t': {'metrics': ['f1', 'accuracy'], 'labels': ['no', 'yes']}}
  found = comparison.differences(a, b, facts)
  assert list(found) == ['f1', 'accuracy']
  for side, name in ((a, 'first'), (b, 'second')):
    t, p = ([getattr(x, what) == 'yes' for x in side] for what in ('target', 'prediction'))
    assert getattr(found['f1'], name) == pytest.approx(100 * sklearn.metrics.f1_score(t, p))
    hits = 100 * np.mean([x.correct for x in side])
    assert getattr(found['accuracy'], name) == pytest.approx(hits)
  low, high = found['accuracy'].interval
  assert low < found['accuracy'].second - found['accuracy'].first < high
  assert found == comparison.differences(a, b, facts)
  same = comparison.differences(a, a, facts)['f1']
  assert same.interval == (0, 0)
  assert comparison.differences(a[:1], b[:1], facts)['accuracy'].interval is None


def test_of_several_tasks_each_is_drawn_from_by_itself():
  a = said([True, False] * 10, 'p') + said([True] * 5, 'q')
  b = said([True] * 20, 'p') + said([False] * 5, 'q')
  found = comparison.differences(a, b, {})  # nothing is known but who is right
  assert list(found) == ['mean', 'p/accuracy', 'q/accuracy']
  assert (found['mean'].first, found['mean'].second) == (75, 50)
  assert found['q/accuracy'].interval == (-100, -100)
  low, high = found['p/accuracy'].interval
  assert found['mean'].interval == pytest.approx(((low - 100) / 2, (high - 100) / 2), abs=3)


def test_texts_are_compared_with_all_their_answers():
  answers = [['the cat', 'dog'], ['blue house']]
  rows = lambda *texts: [
    Prediction('q', a[0], t, t in a, {}, answers=a) for a, t in zip(answers, texts, strict=True)
  ]
  facts = {'t': {'metrics': ['squad'], 'labels': None}}
  found = comparison.differences(rows('Dog', 'car'), rows('cat', 'a blue car'), facts)
  for name, want in metrics.compute(['squad'], answers, ['Dog', 'car']).items():
    assert found[name].first == pytest.approx(want)
  for name, want in metrics.compute(['squad'], answers, ['cat', 'a blue car']).items():
    assert found[name].second == pytest.approx(want)


def test_labels_may_be_compared_as_texts_and_as_classes():
  a, b = said([True, False, True]), said([True, True, False])
  facts = {'t': {'metrics': ['squad', 'f1_macro', 'accuracy'], 'labels': ['no', 'yes', 'maybe']}}
  found = comparison.differences(a, b, facts)
  assert list(found) == ['f1', 'em', 'f1_macro', 'accuracy']
  assert found['em'].first == found['accuracy'].first == pytest.approx(200 / 3)
  classes = [['no', 'yes', 'maybe'].index(p.prediction) for p in b]
  want = sklearn.metrics.f1_score(
    [0, 1, 1], classes, labels=[0, 1, 2], average='macro', zero_division=0
  )
  assert found['f1_macro'].second == pytest.approx(100 * want)
  invalid = [dataclasses.replace(p, prediction='else', correct=False) for p in b]
  assert comparison.differences(a, invalid, facts)['f1_macro'].second == 0


@pytest.mark.parametrize('what', ['input', 'target', 'task', 'answers', 'group'])
def test_other_examples_are_refused(what):
  first = said([True] * 3)
  other = [
    *first[:2],
    dataclasses.replace(first[2], **{what: ['else'] if what == 'answers' else 'else'}),
  ]
  with pytest.raises(UserError, match=facts('3', what, 'else')):
    comparison.check_pairs(first, other)
  with pytest.raises(UserError, match=facts('3', '2')):
    comparison.check_pairs(first, first[:2])
  comparison.check_pairs(first, said([False] * 3))


def test_predictions_without_known_answers_are_refused():
  unknown = [dataclasses.replace(p, correct=None) for p in said([True, True])]
  with pytest.raises(UserError, match='right'):
    comparison.differences(unknown, unknown, {})


def test_a_task_is_described_by_what_measures_it():
  plain = Task('a', {}, ('no', 'yes'), ('f1', 'accuracy'))
  own = Task('b', {}, None, ('bleu',), score=lambda e, p: {'x': 1.0})
  assert suite.task_facts(plain) == {'a': {'metrics': ['f1', 'accuracy'], 'labels': ['no', 'yes']}}
  both = dataclasses.replace(plain, name='a+b', parts=(plain, own))
  assert suite.task_facts(both)['b'] == {'metrics': ['exact_match'], 'labels': None}
  assert comparison.counts_hits(['f1'], ['no', 'yes'])
  assert comparison.counts_hits(['squad'], None)
  assert not comparison.counts_hits(['rouge', 'bleu'], None)
