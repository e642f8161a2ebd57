"""Metrics by name. Names and scales are T5's: every value is in percent, 0 to 100.

Each metric is defined once, as a function of how often each example is drawn: drawing every example
once gives the scores of a split (`compute`), drawing with replacement those of a bootstrap resample
(`bootstrap.distribution`). Most scores are functions of sums over examples, so those of R resamples
are one matrix product.

Classification metrics take label indices; a prediction of -1 is a text that is no label, and always
wrong. What one text scores against its target is in `text_metrics.py`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError, unknown
from prompt_jax.evaluation import text_metrics
from prompt_jax.evaluation.bootstrap import ScoresOfDraws, Statistic

Scores = dict[str, float]

# A text that is none of the labels.
INVALID = -1


@dataclasses.dataclass(frozen=True)
class MetricInputs:
  """What a metric compares.

  Attributes:
    targets: label indices, numbers, texts, or lists of texts (several correct answers).
    predictions: as many.
    groups: the group of each example, for metrics of groups; else None, or None for an example.
    labels: number of labels of the task; None for a task without.
    vocabulary: the model's; None where it is not known.
  """

  targets: Sequence[Any]
  predictions: Sequence[Any]
  groups: Sequence[Any] | None = None
  labels: int | None = None
  vocabulary: Vocabulary | None = None

  def pairs(self) -> Iterator[tuple[Any, Any]]:
    """(target, prediction) of each example."""
    return zip(self.targets, self.predictions, strict=True)

  @property
  def grouped(self) -> bool:
    """Whether every example has a group."""
    return self.groups is not None and not any(group is None for group in self.groups)

  @functools.cached_property
  def units(self) -> np.ndarray:
    """int64[N] the unit of each example: its group in order of first appearance, or itself."""
    if self.groups is None or not self.grouped:
      return np.arange(len(self.targets))
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in self.groups])


class Metric(NamedTuple):
  """One metric.

  Attributes:
    of: inputs -> the scores of draws of their units.
    scores: the names of its scores, the one to select prompts by first.
    needs: what `MetricInputs` must have beside targets and predictions.
  """

  of: Callable[[MetricInputs], ScoresOfDraws]
  scores: tuple[str, ...]
  needs: Literal['groups', 'labels', 'vocabulary'] | None = None


# float64[R, k] sums over the examples drawn -> {score: float64[R]}.
OfSums = Callable[[np.ndarray], dict[str, np.ndarray]]


def of_sums(rows: np.ndarray, units: np.ndarray, score: OfSums) -> ScoresOfDraws:
  """A score that is a function of sums of float64[N, k] over the examples that are drawn."""
  of_unit = np.zeros((units.max() + 1, rows.shape[1]))
  np.add.at(of_unit, units, rows)
  return lambda draws: score(draws @ of_unit)


def of_mean(columns: Mapping[str, Sequence[Any]], units: np.ndarray) -> ScoresOfDraws:
  """Scores that are means over the examples drawn: {score: 0 to 1 of each example}."""
  rows = np.array([*columns.values(), np.ones(len(units))], np.float64).T
  names = tuple(columns)
  return of_sums(
    rows, units, lambda s: {name: 100 * (s[:, i] / s[:, -1]) for i, name in enumerate(names)}
  )


def accuracy(inputs: MetricInputs) -> ScoresOfDraws:
  """Share of predictions equal to their target."""
  return of_mean({'accuracy': [t == p for t, p in inputs.pairs()]}, inputs.units)


def exact_match(inputs: MetricInputs) -> ScoresOfDraws:
  """Share of predictions equal to one of their answers, white space at the ends aside.

  T5's sequence_accuracy.
  """
  hits = [text_metrics.is_correct(t, p) for t, p in inputs.pairs()]
  return of_mean({'exact_match': hits}, inputs.units)


def f1(inputs: MetricInputs) -> ScoresOfDraws:
  """F1 of label 1 against label 0 (MRPC, QQP).

  An invalid prediction counts as the wrong one of the two labels. Where label 1 is neither a
  target nor predicted, F1 is 0.

  Raises:
    UserError: the targets have other labels.
  """
  t, p = np.asarray(inputs.targets), np.asarray(inputs.predictions)
  if not np.isin(t, (0, 1)).all():
    raise UserError(
      f'f1 is for two labels, but the targets have the labels {sorted(set(t.tolist()))}; '
      'use f1_macro.'
    )
  p = np.where(np.isin(p, (0, 1)), p, 1 - t)
  rows = np.stack([(t == 1) & (p == 1), t == 1, p == 1], axis=-1).astype(np.float64)
  return of_sums(rows, inputs.units, lambda s: {'f1': _f1(*s.T)})


def f1_macro(inputs: MetricInputs) -> ScoresOfDraws:
  """Mean F1 of all labels of the task.

  T5's mean_3class_f1 (CB). A label that is neither a target nor predicted counts as 0, so a split
  without a label cannot reach 100.
  """
  every = np.arange(inputs.labels or 0)
  t, p = (np.asarray(x)[:, None] == every for x in (inputs.targets, inputs.predictions))
  rows = np.stack([t & p, t, p], axis=1).reshape(len(t), -1).astype(np.float64)

  def score(s: np.ndarray) -> dict[str, np.ndarray]:
    hits, wanted, given = s.reshape(len(s), 3, -1).transpose(1, 0, 2)
    return {'f1_macro': _f1(hits, wanted, given).mean(axis=-1)}

  return of_sums(rows, inputs.units, score)


def matthews_corrcoef(inputs: MetricInputs) -> ScoresOfDraws:
  """Matthews correlation (CoLA), -100 to 100; 0 if targets or predictions are constant.

  Gorodkin's form for any number of classes, by which scikit-learn computes it.
  """
  classes = np.union1d(inputs.targets, inputs.predictions)
  t, p = (np.asarray(x)[:, None] == classes for x in (inputs.targets, inputs.predictions))
  hits = (t & p).any(axis=-1, keepdims=True)
  rows = np.concatenate([hits, t, p], axis=-1).astype(np.float64)

  def score(s: np.ndarray) -> dict[str, np.ndarray]:
    hits, t, p = s[:, 0], s[:, 1 : len(classes) + 1], s[:, len(classes) + 1 :]
    n = t.sum(axis=-1)
    spread = (n**2 - (t**2).sum(-1)) * (n**2 - (p**2).sum(-1))
    covariance = hits * n - (t * p).sum(axis=-1)
    return {'matthews_corrcoef': 100 * _ratio(covariance, np.sqrt(spread))}

  return of_sums(rows, inputs.units, score)


def pearson_corrcoef(inputs: MetricInputs) -> ScoresOfDraws:
  """Pearson correlation (STS-B), -100 to 100; 0 if targets or predictions are constant."""
  t, p = numbers(inputs.targets), numbers(inputs.predictions)
  t, p = t - t.mean(), p - p.mean()  # no precision is lost where the numbers are far from 0
  rows = np.stack([np.ones(len(t)), t, p, t * t, p * p, t * p], axis=-1)
  return of_sums(rows, inputs.units, lambda s: {'pearson_corrcoef': _correlation(s)})


def spearman_corrcoef(inputs: MetricInputs) -> ScoresOfDraws:
  """Spearman rank correlation (STS-B), -100 to 100; ranks are found anew in each resample."""
  ranks = [_ranks(numbers(x)) for x in (inputs.targets, inputs.predictions)]

  def of(draws: np.ndarray) -> dict[str, np.ndarray]:
    draws = draws[:, inputs.units]
    middle = draws.sum(axis=-1, keepdims=True) / 2
    t, p = (ranks_of(draws) - middle for ranks_of in ranks)
    terms = (np.ones_like(t), t, p, t * t, p * p, t * p)
    sums = np.stack([(draws * term).sum(axis=-1) for term in terms], axis=-1)
    return {'spearman_corrcoef': _correlation(sums)}

  return of


def group_exact_match(inputs: MetricInputs) -> ScoresOfDraws:
  """Share of groups whose examples are all correct (MultiRC's questions): "exact_match"."""
  correct = np.ones(inputs.units.max() + 1, bool)
  np.logical_and.at(correct, inputs.units, [t == p for t, p in inputs.pairs()])
  return of_mean({'exact_match': correct.tolist()}, np.arange(len(correct)))


def squad(inputs: MetricInputs) -> ScoresOfDraws:
  """SQuAD 1.1 (Rajpurkar et al. 2016): {"em", "f1"}, each the best over the correct answers."""
  found = [text_metrics.squad_scores(t, p) for t, p in inputs.pairs()]
  return of_mean(_columns(('em', 'f1'), found), inputs.units)


def squad_by_group(inputs: MetricInputs) -> ScoresOfDraws:
  """SQuAD's em and f1 of the first example of each group (ReCoRD repeats its passages)."""
  first = np.unique(inputs.units, return_index=True)[1]
  each = [text_metrics.squad_scores(inputs.targets[i], inputs.predictions[i]) for i in first]
  return of_mean(_columns(('em', 'f1'), each), np.arange(len(first)))


def span_f1(inputs: MetricInputs) -> ScoresOfDraws:
  """F1 of names written as "PER: Ada $$ LOC: Bonn", over all texts together.

  mT5's measure of WikiAnn: a name counts with its kind and as often as it occurs, after SQuAD's
  normalisation; what has no kind is no name. 0 where no name is correct.
  """
  rows = [text_metrics.span_counts(t, p) for t, p in inputs.pairs()]
  return of_sums(np.array(rows, np.float64), inputs.units, lambda s: {'span_f1': _f1(*s.T)})


def bleu(inputs: MetricInputs) -> ScoresOfDraws:
  """Corpus BLEU by sacrebleu with T5's settings (tokenisation "intl", exponential smoothing)."""
  rows = text_metrics.bleu_counts(inputs.targets, inputs.predictions)
  score = lambda s: {'bleu': np.array([text_metrics.bleu_of_counts(row) for row in s])}
  return of_sums(rows, inputs.units, score)


def rouge(inputs: MetricInputs) -> ScoresOfDraws:
  """Mean F-measure of ROUGE-1, -2 and -Lsum (rouge-score, no stemming).

  Of several references the best counts. T5 reports the middle of bootstrap samples of the same
  quantity, which changes from run to run; this is the mean itself. rouge-score reads ASCII
  letters and digits only: use `sp_rouge` for other scripts.
  """
  found = text_metrics.rouge_scores(inputs.targets, inputs.predictions)
  return of_mean(_columns(text_metrics.ROUGE_TYPES, found), inputs.units)


def sp_rouge(inputs: MetricInputs) -> ScoresOfDraws:
  """ROUGE of the tokens of a vocabulary in place of words, for any script (Vu et al. 2022).

  Published scores use mT5's vocabulary; those of another are not comparable. A token that the
  vocabulary does not know equals no other.
  """
  found = text_metrics.rouge_scores(inputs.targets, inputs.predictions, inputs.vocabulary)
  names = [f'sp_{name}' for name in text_metrics.ROUGE_TYPES]
  return of_mean(_columns(names, found), inputs.units)


METRICS: Mapping[str, Metric] = {
  'accuracy': Metric(accuracy, ('accuracy',)),
  'bleu': Metric(bleu, ('bleu',)),
  'exact_match': Metric(exact_match, ('exact_match',)),
  'f1': Metric(f1, ('f1',)),
  'f1_macro': Metric(f1_macro, ('f1_macro',), 'labels'),
  'group_exact_match': Metric(group_exact_match, ('exact_match',), 'groups'),
  'matthews_corrcoef': Metric(matthews_corrcoef, ('matthews_corrcoef',)),
  'pearson_corrcoef': Metric(pearson_corrcoef, ('pearson_corrcoef',)),
  'rouge': Metric(rouge, ('rougeLsum', 'rouge1', 'rouge2')),
  'sp_rouge': Metric(sp_rouge, ('sp_rougeLsum', 'sp_rouge1', 'sp_rouge2'), 'vocabulary'),
  'span_f1': Metric(span_f1, ('span_f1',)),
  'spearman_corrcoef': Metric(spearman_corrcoef, ('spearman_corrcoef',)),
  'squad': Metric(squad, ('f1', 'em')),
  'squad_by_group': Metric(squad_by_group, ('f1', 'em'), 'groups'),
}


def scores_of(names: Sequence[str]) -> list[str]:
  """The names of the scores that `compute` gives; the first is the one to select prompts by."""
  return [score for name in names for score in _metric(name).scores]


def needing(what: str, names: Sequence[str]) -> list[str]:
  """Those of `names` whose metric needs "groups", "labels" or "vocabulary"."""
  return [name for name in names if _metric(name).needs == what]


def compute(
  names: Sequence[str],
  targets: Sequence[Any],
  predictions: Sequence[Any],
  groups: Sequence[Any] | None = None,
  labels: int | None = None,
  vocabulary: Vocabulary | None = None,
) -> Scores:
  """The scores of several metrics in percent, in the order of `scores_of`.

  Args:
    names: keys of METRICS.
    targets: see `MetricInputs`.
    predictions: see `MetricInputs`.
    groups: see `MetricInputs`.
    labels: see `MetricInputs`.
    vocabulary: see `MetricInputs`.

  Raises:
    UserError: an unknown metric, no examples, or no groups, labels or vocabulary for a metric that
      needs them.
  """
  return statistic(names, targets, predictions, groups, labels, vocabulary).scores()


def statistic(
  names: Sequence[str],
  targets: Sequence[Any],
  predictions: Sequence[Any],
  groups: Sequence[Any] | None = None,
  labels: int | None = None,
  vocabulary: Vocabulary | None = None,
) -> Statistic:
  """`compute` as a function of draws of the examples, or of their groups; see `bootstrap`.

  Raises:
    UserError: as `compute`.
  """
  inputs = MetricInputs(targets, predictions, groups, labels, vocabulary)
  if not len(targets):
    raise UserError('There are no examples to evaluate; check the split or the limit on examples.')
  for name in names:
    _check_needs(name, _metric(name), inputs)
  parts = [METRICS[name].of(inputs) for name in names]

  def of(draws: np.ndarray) -> dict[str, np.ndarray]:
    found = {name: values for part in parts for name, values in part(draws).items()}
    return {name: found[name] for name in scores_of(names)}

  return Statistic(of, int(inputs.units.max()) + 1)


def _metric(name: str) -> Metric:
  if name not in METRICS:
    raise unknown('metric', name, METRICS)
  return METRICS[name]


def _check_needs(name: str, metric: Metric, inputs: MetricInputs) -> None:
  if metric.needs == 'labels' and inputs.labels is None:
    raise UserError(f'The metric {name!r} is for tasks with labels; this one has none.')
  if metric.needs == 'vocabulary' and inputs.vocabulary is None:
    raise UserError(
      f'The metric {name!r} reads the tokens of a vocabulary; none is given.', ['vocabulary']
    )
  if metric.needs == 'groups' and not inputs.grouped:
    raise UserError(f"The metric {name!r} needs a field 'group' in every example.")


def numbers(values: Sequence[Any]) -> np.ndarray:
  """float64[N]; a text that is no number counts as -1, as in T5's STS-B."""
  return np.array([_number(value) for value in values])


def _number(value: Any) -> float:
  try:
    number = float(value)
  except ValueError:
    return -1.0
  return number if math.isfinite(number) else -1.0


def _columns(names: Sequence[str], rows: Sequence[Sequence[float]]) -> dict[str, Sequence[float]]:
  return dict(zip(names, zip(*rows, strict=True), strict=True))


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
  """above / below, 0 where that is undefined."""
  return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


def _f1(hits: np.ndarray, wanted: np.ndarray, given: np.ndarray) -> np.ndarray:
  """Percent; 0 where there is nothing wanted and nothing given."""
  return 100 * _ratio(2 * hits, wanted + given)


def _correlation(sums: np.ndarray) -> np.ndarray:
  """Percent, from sums [R, 6] of 1, t, p, t^2, p^2 and t p; 0 where t or p is constant."""
  n, t, p, tt, pp, tp = sums.T
  spread_t, spread_p = tt - t * t / n, pp - p * p / n
  varies = (spread_t > 1e-12 * tt) & (spread_p > 1e-12 * pp)
  spread = np.where(varies, np.sqrt(np.abs(spread_t * spread_p)), 0.0)
  return 100 * _ratio(tp - t * p / n, spread)


def _ranks(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
  """float64[N] -> a function from draws [R, N] to ranks less 1/2 [R, N]; ties share their mean."""
  _, at, sizes = np.unique(values, return_inverse=True, return_counts=True)
  order, starts = np.argsort(at, kind='stable'), np.cumsum(sizes) - sizes

  def of(draws: np.ndarray) -> np.ndarray:
    count = np.add.reduceat(draws[:, order], starts, axis=-1)
    return (np.cumsum(count, axis=-1) - count / 2)[:, at]

  return of
