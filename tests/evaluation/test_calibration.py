"""Calibration against the definitions written out in NumPy, one prediction after another."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.evaluation import calibration

SURE = st.one_of(st.floats(0, 1), st.integers(0, 15).map(lambda n: n / 15))
PAIRS = st.lists(st.tuples(SURE, st.booleans()), min_size=1, max_size=40)


def _ece(sure, right, bins):
  """Guo et al. 2017: B_m holds the predictions with confidence in ((m - 1) / M, m / M]."""
  total = 0.0
  for m in range(1, bins + 1):
    inside = [
      i for i, p in enumerate(sure) if (m - 1) / bins < p <= m / bins or (m == 1 and p == 0)
    ]
    if inside:
      gap = np.mean([right[i] for i in inside]) - np.mean([sure[i] for i in inside])
      total += len(inside) / len(sure) * abs(gap)
  return 100 * total


@settings(deadline=None)
@given(PAIRS, st.sampled_from([1, 10, 15]))
def test_calibration_error_follows_its_definition(pairs, bins):
  sure, right = zip(*pairs, strict=True)
  found = calibration.reliability(sure, right, bins)
  assert calibration.expected_calibration_error(found) == pytest.approx(
    _ece(sure, right, bins), abs=1e-9
  )
  assert sum(b.examples for b in found) == len(pairs)
  assert sum(b.examples * b.accuracy for b in found) == pytest.approx(sum(right))


def test_bins_of_a_reliability_diagram():
  found = calibration.reliability([0.5, 0.9, 0.95, 1.0], [True, True, False, True], 4)
  assert [(b.low, b.high, b.examples) for b in found] == [
    (0.0, 0.25, 0), (0.25, 0.5, 1), (0.5, 0.75, 0), (0.75, 1.0, 3),
  ]  # fmt: skip
  assert found[3].confidence == pytest.approx(0.95)
  assert found[3].accuracy == pytest.approx(2 / 3)
  assert (found[0].confidence, found[0].accuracy) == (0.0, 0.0)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(2, 5), st.integers(0, 2**32 - 1))
def test_brier_is_the_squared_distance_to_the_right_label(count, labels, seed):
  rng = np.random.default_rng(seed)
  probability = rng.dirichlet(np.ones(labels), count)
  targets = rng.integers(0, labels, count)
  want = 0.0
  for p, y in zip(probability, targets, strict=True):
    want += sum((p[c] - (c == y)) ** 2 for c in range(labels)) / count
  assert calibration.brier(probability, targets) == pytest.approx(100 * want, abs=1e-9)
  if labels == 2:
    of_one = sklearn.metrics.brier_score_loss(targets, probability[:, 1], labels=[0, 1])
    assert calibration.brier(probability, targets) == pytest.approx(200 * of_one, abs=1e-9)


def test_the_ends_of_the_scales():
  sure = np.eye(3)[[0, 1, 1]]
  assert calibration.brier(sure, [0, 1, 1]) == 0
  assert calibration.brier(sure, [1, 0, 2]) == 200
  # One label in all examples: always right and always sure, or always wrong.
  assert calibration.expected_calibration_error(calibration.reliability([1.0] * 4, [True] * 4)) == 0
  wrong = calibration.reliability([1.0] * 4, [False] * 4)
  assert calibration.expected_calibration_error(wrong) == 100
