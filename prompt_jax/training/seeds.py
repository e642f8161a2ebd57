"""The same run with several seeds, as mean and standard deviation."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class MeanStd(NamedTuple):
  """Mean, sample standard deviation (n - 1 in the denominator; NaN for one value), and n."""

  mean: float
  std: float
  n: int

  def __str__(self) -> str:
    return f'{self.mean:.4g}' if self.n == 1 else f'{self.mean:.4g} +- {self.std:.2g} (n={self.n})'


def summarize(results: Sequence[Mapping[str, float]]) -> dict[str, MeanStd]:
  """Mean and standard deviation of every metric.

  Args:
    results: one mapping a seed; all have the same names.

  Raises:
    ValueError: there are none, or their names differ.
  """
  if not results:
    raise ValueError('No results to summarise')
  names = set(results[0])
  for i, result in enumerate(results):
    if set(result) != names:
      differ = ', '.join(sorted(names ^ set(result)))
      raise ValueError(f'Result {i} does not have the metrics of result 0; they differ in {differ}')
  return {name: mean_std([float(r[name]) for r in results]) for name in results[0]}


def mean_std(values: Sequence[float]) -> MeanStd:
  """Mean and sample standard deviation of some values."""
  n = len(values)
  mean = math.fsum(values) / n
  if n == 1:
    return MeanStd(mean, math.nan, 1)
  return MeanStd(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)), n)


def run_seeds(
  run: Callable[[int], Mapping[str, float]], seeds: Sequence[int]
) -> tuple[list[dict[str, float]], dict[str, MeanStd]]:
  """`run(seed)` for each seed: every result, and their summary."""
  results = [dict(run(seed)) for seed in seeds]
  return results, summarize(results)
