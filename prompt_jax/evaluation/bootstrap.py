"""The bootstrap (Efron 1979): the scores of many resamples of the same examples at once.

A resample draws as many units as there are, with replacement; how often each was drawn is all that
a score needs to know. A unit is an example, or a group of examples that are scored together (the
answers to a question of MultiRC), since members of a group are not drawn independently.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 1000
LEVEL = 0.95

# How often each unit was drawn, float64[R, units] -> {score: float64[R]}, in percent.
ScoresOfDraws = Callable[[np.ndarray], dict[str, np.ndarray]]


class Statistic(NamedTuple):
  """The scores of one system as a function of how often each unit is drawn.

  Attributes:
    of: the function.
    units: how many units there are.
  """

  of: ScoresOfDraws
  units: int

  def scores(self) -> dict[str, float]:
    """The scores of the examples themselves: every unit drawn once."""
    once = self.of(np.ones((1, self.units)))
    return {name: float(values[0]) for name, values in once.items()}


def function_statistic(
  function: Callable[[Sequence[int]], Mapping[str, float]], count: int
) -> Statistic:
  """The statistic of any function of examples; it is called once a resample.

  Args:
    function: indices of the examples drawn (of N; some repeated) -> {score: percent}.
    count: N.
  """

  def of(draws: np.ndarray) -> dict[str, np.ndarray]:
    drawn = [np.repeat(np.arange(count), row.astype(int)).tolist() for row in draws]
    found = [function(indices) for indices in drawn]
    return {name: np.array([f[name] for f in found], np.float64) for name in found[0]}

  return Statistic(of, count)


def distribution(
  statistic: Statistic, resamples: int = RESAMPLES, seed: int | Sequence[int] = 0
) -> dict[str, np.ndarray]:
  """{score: float64[resamples]}, the same for the same seed; {} for fewer than two units."""
  if statistic.units < 2 or resamples < 1:
    return {}
  rng, units = np.random.default_rng(seed), statistic.units
  at_once = max(1, 2**22 // units)  # resamples whose draws take 32 MB
  found = []
  for start in range(0, resamples, at_once):
    rows = min(at_once, resamples - start)
    drawn = rng.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]
    draws = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
    found.append(statistic.of(draws.astype(np.float64)))
  return {name: np.concatenate([f[name] for f in found]) for name in found[0]}


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
  """The percentile interval of a distribution: (low, high), each tail with half of the rest."""
  low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)


def difference(first: Statistic, second: Statistic) -> Statistic:
  """The scores of `second` minus those of `first`, on the same draws of the same examples."""
  if first.units != second.units:
    raise ValueError(f'{first.units} and {second.units} units are no pairs')

  def of(draws: np.ndarray) -> dict[str, np.ndarray]:
    a, b = first.of(draws), second.of(draws)
    return {name: b[name] - a[name] for name in a if name in b}

  return Statistic(of, first.units)
