"""Scores of many resamples of the same examples at once: the bootstrap (Efron 1979).

A resample draws as many units as there are, with replacement; how often each was drawn is all that
a score needs to know. Most scores are functions of sums over examples, so those of R resamples are
one matrix product, and BLEU counts no n-gram twice. A unit is an example; where examples are judged
in groups (the answers to a question of MultiRC), it is a group, for its members are not drawn
independently of each other.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import unknown
from prompt_jax.evaluation import metrics, text_metrics

RESAMPLES = 1000
LEVEL = 0.95

# How often each unit was drawn, float64[R, units] -> {score: float64[R]}, in percent.
Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]


class Resampled(NamedTuple):
  """The scores of one system as a function of draws.

  Attributes:
    of: the function.
    units: how many there are to draw from.
  """

  of: Statistic
  units: int


def statistic(
  names: Sequence[str],
  targets: Sequence[Any],
  predictions: Sequence[Any],
  groups: Sequence[Any] | None = None,
  labels: int | None = None,
  vocabulary: Vocabulary | None = None,
) -> Resampled:
  """`metrics.compute`, with the same arguments, of resamples: every unit once gives its scores.

  Raises:
    UserError: as `metrics.compute`.
  """
  metrics.check(names, len(targets), groups, labels, vocabulary)
  units = _units(len(targets), groups)
  members = _members(units)

  def part(name: str) -> Statistic:
    if name in metrics.GROUPED:
      assert groups is not None
      measure = metrics.GROUPED[name]
      return _mean([
        measure(*([column[i] for i in of_unit] for column in (targets, predictions, groups)))
        for of_unit in members
      ])  # fmt: skip
    if name in MEANS:
      each = [metrics.METRICS[name]([t], [p]) for t, p in zip(targets, predictions, strict=True)]
      return _mean(each, units)
    if name in metrics.OVER_VOCABULARY:
      assert vocabulary is not None
      of_tokens = metrics.OVER_VOCABULARY[name]
      pairs = zip(targets, predictions, strict=True)
      return _mean([of_tokens([t], [p], vocabulary) for t, p in pairs], units)
    if name == 'spearman_corrcoef':
      return _spearman(targets, predictions, units)
    if name not in SUMS:
      raise unknown('metric that can be resampled', name, [*MEANS, *SUMS, *metrics.GROUPED])
    rows, value = SUMS[name](targets, predictions, labels)
    return _sums(rows, units, value)

  parts = [part(name) for name in names]

  def of(draws: np.ndarray) -> dict[str, np.ndarray]:
    found = {name: values for p in parts for name, values in p(draws).items()}
    return {name: found[name] for name in metrics.scores_of(names)}

  return Resampled(of, len(members))


def of_measure(measure: Callable[[Sequence[int]], Mapping[str, float]], count: int) -> Resampled:
  """Any measure at all, called once a resample.

  Args:
    measure: numbers of examples (of N; some several times) -> {score: percent}.
    count: N.
  """

  def of(draws: np.ndarray) -> dict[str, np.ndarray]:
    drawn = [np.repeat(np.arange(count), row.astype(int)).tolist() for row in draws]
    found = [measure(numbers) for numbers in drawn]
    return {name: np.array([f[name] for f in found], np.float64) for name in found[0]}

  return Resampled(of, count)


def distribution(
  resampled: Resampled, resamples: int = RESAMPLES, seed: int | Sequence[int] = 0
) -> dict[str, np.ndarray]:
  """{score: float64[resamples]}, the same for the same seed; {} for fewer than two units."""
  if resampled.units < 2 or resamples < 1:
    return {}
  rng, units = np.random.default_rng(seed), resampled.units
  at_once = max(1, 2**22 // units)  # so many that their draws take 32 MB
  found = []
  for start in range(0, resamples, at_once):
    rows = min(at_once, resamples - start)
    drawn = rng.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]
    draws = np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units)
    found.append(resampled.of(draws.astype(np.float64)))
  return {name: np.concatenate([f[name] for f in found]) for name in found[0]}


def interval(values: np.ndarray, level: float = LEVEL) -> tuple[float, float]:
  """The percentile interval of a distribution: (low, high), each tail with half of the rest."""
  low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)


def difference(first: Resampled, second: Resampled) -> Resampled:
  """What a second system has more than a first, on the same draws of the same examples."""
  if first.units != second.units:
    raise ValueError(f'{first.units} and {second.units} units are no pairs')

  def of(draws: np.ndarray) -> dict[str, np.ndarray]:
    a, b = first.of(draws), second.of(draws)
    return {name: b[name] - a[name] for name in a if name in b}

  return Resampled(of, first.units)


def _units(count: int, groups: Sequence[Any] | None) -> np.ndarray:
  """int64[N] the unit of each example: its group, in the order of first appearance, or itself."""
  if groups is None or any(group is None for group in groups):
    return np.arange(count)
  numbers: dict[Any, int] = {}
  return np.array([numbers.setdefault(group, len(numbers)) for group in groups])


def _members(units: np.ndarray) -> list[list[int]]:
  members: list[list[int]] = [[] for _ in range(units.max() + 1)]
  for i, unit in enumerate(units.tolist()):
    members[unit].append(i)
  return members


Value = Callable[[np.ndarray], dict[str, np.ndarray]]  # float64[R, k] sums -> scores


def _sums(rows: np.ndarray, units: np.ndarray, value: Value) -> Statistic:
  """A function of sums of float64[N, k] over the examples that were drawn."""
  of_unit = np.zeros((units.max() + 1, rows.shape[1]))
  np.add.at(of_unit, units, rows)
  return lambda draws: value(draws @ of_unit)


def _mean(each: Sequence[Mapping[str, float]], units: np.ndarray | None = None) -> Statistic:
  """The mean of the scores of each example, or of each unit."""
  names = list(each[0])
  rows = np.array([[*(scores[n] for n in names), 1.0] for scores in each])
  value = lambda sums: {name: sums[:, i] / sums[:, -1] for i, name in enumerate(names)}
  return _sums(rows, np.arange(len(rows)) if units is None else units, value)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
  """above / below, 0 where that is undefined."""
  return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _f1(targets: Sequence[int], predictions: Sequence[int], labels: int | None):
  t, p = metrics.binary(targets, predictions)
  rows = np.stack([(t == 1) & (p == 1), t == 1, p == 1], axis=-1).astype(np.float64)
  return rows, lambda s: {'f1': 100 * _ratio(2 * s[:, 0], s[:, 1] + s[:, 2])}


def _f1_macro(targets: Sequence[int], predictions: Sequence[int], labels: int | None):
  t, p = (np.asarray(x)[:, None] == np.arange(labels or 0) for x in (targets, predictions))
  rows = np.stack([t & p, t, p], axis=1).reshape(len(t), -1).astype(np.float64)

  def value(s: np.ndarray) -> dict[str, np.ndarray]:
    hit, wanted, given = s.reshape(len(s), 3, -1).transpose(1, 0, 2)
    return {'f1_macro': 100 * _ratio(2 * hit, wanted + given).mean(axis=-1)}

  return rows, value


def _matthews(targets: Sequence[int], predictions: Sequence[int], labels: int | None):
  """Gorodkin's form for any number of classes, by which scikit-learn computes it."""
  classes = np.union1d(targets, predictions)
  t, p = (np.asarray(x)[:, None] == classes for x in (targets, predictions))
  right = (t & p).any(axis=-1, keepdims=True)
  rows = np.concatenate([right, t, p], axis=-1).astype(np.float64)

  def value(s: np.ndarray) -> dict[str, np.ndarray]:
    right, t, p = s[:, 0], s[:, 1 : len(classes) + 1], s[:, len(classes) + 1 :]
    n = t.sum(axis=-1)
    spread = (n**2 - (t**2).sum(-1)) * (n**2 - (p**2).sum(-1))
    covariance = right * n - (t * p).sum(axis=-1)
    return {'matthews_corrcoef': 100 * _ratio(covariance, np.sqrt(spread))}

  return rows, value


def _pearson(targets: Sequence[Any], predictions: Sequence[Any], labels: int | None):
  t, p = (metrics.numbers(x) for x in (targets, predictions))
  t, p = t - t.mean(), p - p.mean()  # nothing is lost where the numbers are far from 0
  rows = np.stack([np.ones(len(t)), t, p, t * t, p * p, t * p], axis=-1)
  return rows, lambda s: {'pearson_corrcoef': _correlation(s)}


def _correlation(sums: np.ndarray) -> np.ndarray:
  """Percent, from sums [R, 6] of 1, t, p, t^2, p^2 and t p; 0 where t or p is constant."""
  n, t, p, tt, pp, tp = sums.T
  spread_t, spread_p = tt - t * t / n, pp - p * p / n
  varies = (spread_t > 1e-12 * tt) & (spread_p > 1e-12 * pp)
  spread = np.where(varies, np.sqrt(np.abs(spread_t * spread_p)), 0.0)
  return 100 * _ratio(tp - t * p / n, spread)


def _spearman(targets: Sequence[Any], predictions: Sequence[Any], units: np.ndarray) -> Statistic:
  """Ranks are no sums: they are found anew in each resample."""
  ranks = [_ranks(metrics.numbers(x)) for x in (targets, predictions)]

  def of(draws: np.ndarray) -> dict[str, np.ndarray]:
    draws = draws[:, units]
    t, p = (of_column(draws) for of_column in ranks)
    middle = draws.sum(axis=-1, keepdims=True) / 2
    t, p = t - middle, p - middle
    terms = (np.ones_like(t), t, p, t * t, p * p, t * p)
    sums = np.stack([(draws * term).sum(axis=-1) for term in terms], axis=-1)
    return {'spearman_corrcoef': _correlation(sums)}

  return of


def _ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
  """float64[N] -> a function from draws [R, N] to ranks less 1/2 [R, N]; ties share their mean."""
  _, at, sizes = np.unique(values, return_inverse=True, return_counts=True)
  order, starts = np.argsort(at, kind='stable'), np.cumsum(sizes) - sizes

  def of(draws: np.ndarray) -> np.ndarray:
    count = np.add.reduceat(draws[:, order], starts, axis=-1)
    return (np.cumsum(count, axis=-1) - count / 2)[:, at]

  return of


def _span_f1(targets: Sequence[Any], predictions: Sequence[Any], labels: int | None):
  rows = [text_metrics.span_counts(t, p) for t, p in zip(targets, predictions, strict=True)]
  value = lambda s: {'span_f1': 100 * _ratio(2 * s[:, 0], s[:, 1] + s[:, 2])}
  return np.array(rows, np.float64), value


def _bleu(targets: Sequence[Any], predictions: Sequence[Any], labels: int | None):
  rows = text_metrics.bleu_counts(targets, predictions)
  return rows, lambda s: {'bleu': np.array([text_metrics.bleu_of_counts(row) for row in s])}


# The score of all examples is the mean of the scores of each.
MEANS = ('accuracy', 'exact_match', 'rouge', 'squad')
# The score is a function of sums: (targets, predictions, labels) -> rows [N, k], value of sums.
SUMS: Mapping[str, Callable[..., tuple[np.ndarray, Value]]] = {
  'bleu': _bleu,
  'f1': _f1,
  'f1_macro': _f1_macro,
  'matthews_corrcoef': _matthews,
  'pearson_corrcoef': _pearson,
  'span_f1': _span_f1,
}
