"""Scores of resamples against the metrics of lists in which examples stand as often as drawn."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.errors import UserError
from prompt_jax.evaluation import bootstrap, metrics
from prompt_jax.testing import tiny
from tests.shared import facts

WORDS = ('red', 'blue', 'a', 'cat.', 'PER: Ada', '$$', 'LOC: Bonn', '')


def _texts(rng, count):
  return [' '.join(rng.choice(WORDS, rng.integers(0, 6))) for _ in range(count)]


def _case(name, rng, count, constant=False):
  """Random targets and predictions of the kind that a metric takes."""
  if name in ('bleu', 'rouge', 'sp_rouge', 'squad', 'squad_by_group', 'span_f1', 'exact_match'):
    targets = _texts(rng, count)
    predictions = [
      t if rng.random() < 0.4 else w for t, w in zip(targets, _texts(rng, count), strict=True)
    ]
    if name in ('bleu', 'squad'):
      targets = [[t, *_texts(rng, i % 2)] for i, t in enumerate(targets)]
    return targets, [''] * count if constant else predictions
  if name in ('pearson_corrcoef', 'spearman_corrcoef'):
    targets = rng.integers(0, 6, count) / 5 + 100
    predictions = targets + rng.integers(-2, 3, count) / 5
  else:
    top = 2 if name in ('f1', 'group_exact_match') else 4
    targets = rng.integers(0, top, count)
    predictions = np.where(rng.random(count) < 0.5, targets, rng.integers(-1, top, count))
  return targets.tolist(), [1] * count if constant else predictions.tolist()


@pytest.mark.parametrize('name', metrics.METRICS)
@pytest.mark.parametrize('constant', [False, True])
def test_a_resample_scores_as_the_list_of_what_was_drawn(name, constant):
  rng = np.random.default_rng(len(name))
  for count in (1, 2, 9, 30):
    targets, predictions = _case(name, rng, count, constant)
    groups = [i // 3 for i in range(count)] if metrics.needing('groups', [name]) else None
    labels = 4 if metrics.needing('labels', [name]) else None
    words = tiny.Vocabulary() if metrics.needing('vocabulary', [name]) else None
    got = metrics.statistic([name], targets, predictions, groups, labels, words)
    assert got.units == (len(set(groups)) if groups else count)
    draws = np.array([rng.multinomial(got.units, [1 / got.units] * got.units) for _ in range(6)])
    draws[0] = 1  # the examples as they are
    scores = got.of(draws.astype(float))
    for r, row in enumerate(draws):
      # A group that is drawn twice is two groups.
      drawn = [(u, k) for u, n in enumerate(row) for k in range(n)]
      members = [
        (i, (u, k)) for u, k in drawn for i in range(count) if (groups[i] if groups else i) == u
      ]
      columns = [[x[i] for i, _ in members] for x in (targets, predictions)]
      again = [copy for _, copy in members] if groups else None
      want = metrics.compute([name], *columns, again, labels, words)
      assert {k: v[r] for k, v in scores.items()} == pytest.approx(want, abs=1e-9)


def test_several_metrics_and_groups_as_units():
  t, p, groups = [1, 0, 1, 1], [1, 0, 1, 0], ['a', 'a', 'b', 'b']
  got = metrics.statistic(['f1', 'group_exact_match'], t, p, groups)
  scores = got.of(np.array([[1.0, 1.0], [2.0, 0.0]]))
  np.testing.assert_allclose(scores['exact_match'], [50, 100])
  np.testing.assert_allclose(scores['f1'], [80, 100])
  for names, says in (
    (['group_exact_match'], "field 'group'"),
    (['f1_macro'], facts('f1_macro', 'labels')),
    (['sp_rouge'], facts('sp_rouge', 'vocabulary')),
    (['acuracy'], "'accuracy'"),
  ):
    with pytest.raises(UserError, match=says):
      metrics.statistic(names, t, p)
  with pytest.raises(UserError, match='f1_macro'):
    metrics.statistic(['f1'], [0, 1, 2], [0, 1, 2])


def test_any_measure_can_be_resampled():
  values = [3.0, 5.0, 10.0]
  got = bootstrap.function_statistic(
    lambda chosen: {'m': float(np.median([values[i] for i in chosen]))}, 3
  )
  np.testing.assert_allclose(got.of(np.array([[1.0, 1, 1], [0, 1, 2], [3, 0, 0]]))['m'], [5, 10, 3])


def test_the_interval_is_that_of_scipy_and_covers_as_often_as_it_says():
  rng = np.random.default_rng(0)
  hits = (rng.random(200) < 0.8).astype(int)
  found = bootstrap.distribution(metrics.statistic(['accuracy'], [1] * 200, hits.tolist()), 4000)
  low, high = bootstrap.interval(found['accuracy'])
  theirs = scipy.stats.bootstrap(
    (100.0 * hits,), np.mean, n_resamples=4000, method='percentile', rng=rng
  ).confidence_interval
  assert low == pytest.approx(theirs.low, abs=0.75)
  assert high == pytest.approx(theirs.high, abs=0.75)
  covered = 0
  for seed in range(200):
    sample = (np.random.default_rng(seed).random(150) < 0.7).astype(int).tolist()
    one = metrics.statistic(['accuracy'], [1] * 150, sample)
    low, high = bootstrap.interval(bootstrap.distribution(one, 300)['accuracy'])
    covered += low <= 70 <= high
  assert 0.90 <= covered / 200 <= 0.99


def test_the_same_seed_draws_the_same_and_one_unit_says_nothing():
  one = metrics.statistic(['accuracy'], [1, 1, 1], [1, 0, 1])
  first, again = (bootstrap.distribution(one, 50, seed=3)['accuracy'] for _ in range(2))
  np.testing.assert_array_equal(first, again)
  assert (first != bootstrap.distribution(one, 50, seed=4)['accuracy']).any()
  alone = metrics.statistic(['accuracy'], [1], [1])
  assert bootstrap.distribution(alone) == bootstrap.distribution(one, 0) == {}


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_a_difference_is_of_the_same_draws(count, seed):
  rng = np.random.default_rng(seed)
  t = [1] * count
  a, b = (metrics.statistic(['accuracy'], t, rng.integers(0, 2, count).tolist()) for _ in 'ab')
  found = bootstrap.distribution(bootstrap.difference(a, b), 30, seed)
  apart = [bootstrap.distribution(x, 30, seed)['accuracy'] for x in (a, b)]
  np.testing.assert_allclose(found['accuracy'], apart[1] - apart[0], atol=1e-9)
  assert not bootstrap.distribution(bootstrap.difference(a, a), 30, seed)['accuracy'].any()
  with pytest.raises(ValueError, match='pairs'):
    bootstrap.difference(a, metrics.statistic(['accuracy'], [1], [1]))
