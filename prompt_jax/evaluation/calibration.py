"""Calibration of predictions: ECE, Brier score, reliability diagram."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BINS = 15  # as in Guo et al. 2017


class Bin(NamedTuple):
  """The predictions whose confidence lies in one interval (low, high].

  Attributes:
    low: of the interval.
    high: of the interval.
    examples: how many predictions there are.
    confidence: their mean confidence, 0 to 1; 0 without any.
    accuracy: the share of them that is right, 0 to 1; 0 without any.
  """

  low: float
  high: float
  examples: int
  confidence: float
  accuracy: float


class Calibration(NamedTuple):
  """The calibration of one task's predictions.

  Attributes:
    ece: expected calibration error in percent, 0 to 100.
    brier: Brier's score in percent, 0 to 200.
    bins: of the reliability diagram.
  """

  ece: float
  brier: float
  bins: list[Bin]


def calibrate(probability: np.ndarray, targets: Sequence[int] | np.ndarray) -> Calibration:
  """The calibration of label probabilities.

  Args:
    probability: float[N, C] of each label, N at least 1; the highest one is the prediction.
    targets: int[N] the right label.
  """
  right = probability.argmax(axis=-1) == np.asarray(targets)
  bins = reliability(probability.max(axis=-1), right)
  return Calibration(expected_calibration_error(bins), brier(probability, targets), bins)


def reliability(
  confidence: Sequence[float] | np.ndarray, correct: Sequence[bool] | np.ndarray, bins: int = BINS
) -> list[Bin]:
  """The bins of a reliability diagram, of equal width (Guo et al. 2017, section 2).

  Args:
    confidence: float[N] probability of each prediction, 0 to 1.
    correct: bool[N] whether it is right.
    bins: M; the m-th is ((m - 1) / M, m / M], and the first holds 0 as well.
  """
  sure, right = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
  # Edges by the same division as the definition, so that a confidence on an edge falls below it.
  edges = np.arange(bins + 1) / bins
  member = np.clip(np.searchsorted(edges, sure, side='left') - 1, 0, bins - 1)
  count = np.bincount(member, minlength=bins)
  mean = lambda values: np.bincount(member, values, bins) / np.maximum(count, 1)
  columns = edges[:-1], edges[1:], count, mean(sure), mean(right)
  return [Bin(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]


def expected_calibration_error(found: Sequence[Bin]) -> float:
  """ECE (Guo et al. 2017, equation 3) in percent, 0 to 100.

  The mean over predictions of the gap between accuracy and confidence of their bin.

  Args:
    found: the bins, with at least one prediction in all.
  """
  total = sum(b.examples for b in found)
  return 100 * sum(b.examples * abs(b.accuracy - b.confidence) for b in found) / total


def brier(probability: np.ndarray, targets: Sequence[int] | np.ndarray) -> float:
  """Brier's score (1950) of several labels in percent, 0 to 200; 0 is best.

  The mean over examples of the sum over labels of (p - y)^2, y being 1 for the correct one; for two
  labels that is twice the score of a single probability.

  Args:
    probability: float[N, C] of each label, N at least 1.
    targets: int[N] the right label.
  """
  right = np.eye(probability.shape[1])[np.asarray(targets, int)]
  return 100 * float(np.mean(np.sum((probability - right) ** 2, axis=-1)))
