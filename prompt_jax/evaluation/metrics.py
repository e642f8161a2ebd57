"""Metrics by name. Names and scales are T5's: every value is in percent, 0 to 100.

A metric takes targets and predictions of equal number and returns a dict, since some measure two
things (SQuAD: em and f1). Classification metrics take label indices; a prediction of -1 is a text
that is no label, and always wrong. Text metrics are in `text_metrics.py`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError, unknown
from prompt_jax.evaluation import text_metrics

Scores = dict[str, float]
Metric = Callable[[Sequence[Any], Sequence[Any]], Scores]
GroupedMetric = Callable[[Sequence[Any], Sequence[Any], Sequence[Any]], Scores]

# A text that is none of the labels.
INVALID = -1


def accuracy(targets: Sequence[Any], predictions: Sequence[Any]) -> Scores:
  """Share of predictions equal to their target: {"accuracy"}."""
  hits = [t == p for t, p in zip(targets, predictions, strict=True)]
  return {'accuracy': 100 * float(np.mean(hits))}


def f1(targets: Sequence[int], predictions: Sequence[int]) -> Scores:
  """F1 of label 1 against label 0 (MRPC, QQP): {"f1"}.

  An invalid prediction counts as the wrong one of the two labels. Where label 1 is neither a
  target nor predicted, F1 is 0.
  """
  from sklearn.metrics import f1_score

  t, p = binary(targets, predictions)
  return {'f1': 100 * float(f1_score(t, p, zero_division=0))}


def binary(targets: Sequence[int], predictions: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
  """Both as int[N] of 0 and 1; an invalid prediction is the wrong one.

  Raises:
    UserError: the targets have other labels.
  """
  t, p = np.asarray(targets), np.asarray(predictions)
  if not np.isin(t, (0, 1)).all():
    raise UserError(
      f'f1 is for two labels, but the targets have the labels {sorted(set(t.tolist()))}; '
      'use f1_macro.'
    )
  return t, np.where(np.isin(p, (0, 1)), p, 1 - t)


def f1_macro(targets: Sequence[int], predictions: Sequence[int], labels: int) -> Scores:
  """Mean F1 of all labels of the task: {"f1_macro"}.

  T5's mean_3class_f1 (CB). A label that is neither a target nor predicted counts as 0, so a split
  without a label cannot reach 100.
  """
  from sklearn.metrics import f1_score

  t, p = list(targets), list(predictions)
  value = f1_score(t, p, labels=range(labels), average='macro', zero_division=0)
  return {'f1_macro': 100 * float(value)}


def matthews_corrcoef(targets: Sequence[int], predictions: Sequence[int]) -> Scores:
  """Matthews correlation (CoLA): {"matthews_corrcoef"}, -100 to 100; 0 if either is constant."""
  from sklearn.metrics import matthews_corrcoef as mcc

  if len(set(targets)) < 2 or len(set(predictions)) < 2:
    return {'matthews_corrcoef': 0.0}
  return {'matthews_corrcoef': 100 * float(mcc(list(targets), list(predictions)))}


def pearson_corrcoef(targets: Sequence[Any], predictions: Sequence[Any]) -> Scores:
  """Pearson correlation (STS-B): {"pearson_corrcoef"}, -100 to 100."""
  from scipy.stats import pearsonr

  return {'pearson_corrcoef': _correlation(pearsonr, targets, predictions)}


def spearman_corrcoef(targets: Sequence[Any], predictions: Sequence[Any]) -> Scores:
  """Spearman rank correlation (STS-B): {"spearman_corrcoef"}, -100 to 100."""
  from scipy.stats import spearmanr

  return {'spearman_corrcoef': _correlation(spearmanr, targets, predictions)}


def _correlation(measure: Callable, targets: Sequence[Any], predictions: Sequence[Any]) -> float:
  """Percent; 0 where either side is constant, which leaves a correlation undefined."""
  t, p = numbers(targets), numbers(predictions)
  if np.ptp(t) == 0 or np.ptp(p) == 0:
    return 0.0
  return 100 * float(measure(t, p)[0])


def numbers(values: Sequence[Any]) -> np.ndarray:
  """float64[N]; a text that is no number counts as -1, as in T5's STS-B."""
  return np.array([_number(value) for value in values])


def _number(value: Any) -> float:
  try:
    number = float(value)
  except ValueError:
    return -1.0
  return number if math.isfinite(number) else -1.0


def group_exact_match(
  targets: Sequence[Any], predictions: Sequence[Any], groups: Sequence[Any]
) -> Scores:
  """Share of groups that are right throughout (MultiRC's questions): {"exact_match"}."""
  right: dict[Any, bool] = {}
  for target, prediction, group in zip(targets, predictions, groups, strict=True):
    right[group] = right.get(group, True) and target == prediction
  return {'exact_match': 100 * float(np.mean(list(right.values())))}


def squad_by_group(
  targets: Sequence[Any], predictions: Sequence[str], groups: Sequence[Any]
) -> Scores:
  """SQuAD's em and f1 of the first example of each group (ReCoRD repeats its passages)."""
  first = list({group: i for i, group in reversed(list(enumerate(groups)))}.values())
  return text_metrics.squad([targets[i] for i in first], [predictions[i] for i in first])


METRICS: Mapping[str, Metric] = {
  'accuracy': accuracy,
  'bleu': text_metrics.bleu,
  'exact_match': text_metrics.exact_match,
  'f1': f1,
  'matthews_corrcoef': matthews_corrcoef,
  'pearson_corrcoef': pearson_corrcoef,
  'rouge': text_metrics.rouge,
  'span_f1': text_metrics.span_f1,
  'spearman_corrcoef': spearman_corrcoef,
  'squad': text_metrics.squad,
}

# These also read the field "group" of each example.
GROUPED: Mapping[str, GroupedMetric] = {
  'group_exact_match': group_exact_match,
  'squad_by_group': squad_by_group,
}


# These also take the number of labels of the task.
OVER_LABELS: Mapping[str, Callable[[Sequence[int], Sequence[int], int], Scores]] = {
  'f1_macro': f1_macro,
}


# These also read the tokens of a vocabulary.
OVER_VOCABULARY: Mapping[str, Callable[[Sequence[Any], Sequence[str], Vocabulary], Scores]] = {
  'sp_rouge': text_metrics.sp_rouge,
}


# Those whose scores are named otherwise, the one to select by first.
SCORES: Mapping[str, tuple[str, ...]] = {
  'group_exact_match': ('exact_match',),
  'rouge': ('rougeLsum', 'rouge1', 'rouge2'),
  'sp_rouge': ('sp_rougeLsum', 'sp_rouge1', 'sp_rouge2'),
  'squad': ('f1', 'em'),
  'squad_by_group': ('f1', 'em'),
}


def scores_of(names: Sequence[str]) -> list[str]:
  """The names of the scores that `compute` gives; the first is the one to select by."""
  return [score for name in names for score in SCORES.get(name, (name,))]


def compute(
  names: Sequence[str],
  targets: Sequence[Any],
  predictions: Sequence[Any],
  groups: Sequence[Any] | None = None,
  labels: int | None = None,
  vocabulary: Vocabulary | None = None,
) -> Scores:
  """The scores of several metrics, in the order of `scores_of`.

  Args:
    names: keys of METRICS, GROUPED, OVER_LABELS or OVER_VOCABULARY.
    targets: label indices, numbers, texts, or lists of texts (several right answers).
    predictions: as many.
    groups: which group each example belongs to; only for metrics of GROUPED.
    labels: number of labels of the task; only for metrics of OVER_LABELS.
    vocabulary: the model's; only for metrics of OVER_VOCABULARY.

  Returns:
    Metric name -> percent.

  Raises:
    UserError: an unknown metric, no examples, or no groups, labels or vocabulary for a metric that
      needs them.
  """
  check(names, len(targets), groups, labels, vocabulary)
  scores: Scores = {}
  for name in names:
    if name in METRICS:
      scores |= METRICS[name](targets, predictions)
    elif name in OVER_LABELS:
      assert labels is not None
      scores |= OVER_LABELS[name](targets, predictions, labels)
    elif name in OVER_VOCABULARY:
      assert vocabulary is not None
      scores |= OVER_VOCABULARY[name](targets, predictions, vocabulary)
    else:
      assert groups is not None
      scores |= GROUPED[name](targets, predictions, groups)
  return {name: scores[name] for name in scores_of(names)}


def check(
  names: Sequence[str],
  count: int,
  groups: Sequence[Any] | None = None,
  labels: int | None = None,
  vocabulary: Vocabulary | None = None,
) -> None:
  """Refuses what `compute` cannot measure; `count` is the number of examples.

  Raises:
    UserError: as `compute`.
  """
  if not count:
    raise UserError('There are no examples to evaluate; check the split or the limit on examples.')
  for name in names:
    if name not in {*METRICS, *GROUPED, *OVER_LABELS, *OVER_VOCABULARY}:
      raise unknown('metric', name, [*METRICS, *GROUPED, *OVER_LABELS, *OVER_VOCABULARY])
    if name in OVER_LABELS and labels is None:
      raise UserError(f'The metric {name!r} is for tasks with labels; this one has none.')
    if name in OVER_VOCABULARY and vocabulary is None:
      raise UserError(f'The metric {name!r} reads the tokens of a vocabulary; none is given.')
    if name in GROUPED and (groups is None or None in groups):
      raise UserError(f"The metric {name!r} needs a field 'group' in every example.")
