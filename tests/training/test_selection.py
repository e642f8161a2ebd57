"""Best-step selection, early stopping, and several seeds as mean and deviation."""

import math

import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.training.members import Selection, metric_value
from prompt_jax.training.records import mean_std, summarize
from tests.shared import facts


def history(values, mode):
  selection = Selection()
  for step, value in enumerate(values, start=1):
    selection = selection.updated(step, value, mode)
  return selection


def test_the_best_is_the_first_of_the_highest_or_lowest():
  values = [0.2, 0.8, 0.8, 0.1, 0.1]
  assert history(values, 'max') == Selection(best=0.8, step=2, since=3)
  assert history(values, 'min') == Selection(best=0.1, step=4, since=1)


def test_nan_never_wins():
  nan = float('nan')
  assert history([nan, 0.3, nan], 'max') == Selection(best=0.3, step=2, since=1)
  assert history([nan, nan], 'min') == Selection(best=None, step=None, since=2)


def test_patience_counts_evaluations_that_were_not_better():
  selection = history([0.5, 0.4, 0.5], 'max')
  assert not selection.exhausted(3)
  assert selection.exhausted(2)
  assert not selection.exhausted(None)


def test_the_metric_must_exist():
  assert metric_value({'accuracy': np.float32(0.5)}, 'accuracy') == 0.5
  with pytest.raises(UserError, match=facts("'f1'", 'accuracy, f1_macro')):
    metric_value({'accuracy': 1.0, 'f1_macro': 0.5}, 'f1')


def test_mean_and_sample_deviation():
  values = [0.81, 0.84, 0.90]
  got = mean_std(values)
  np.testing.assert_allclose(got[:2], [np.mean(values), np.std(values, ddof=1)])
  assert str(got) == '0.85 +- 0.046 (n=3)'
  assert math.isnan(mean_std([0.5]).std)
  assert str(mean_std([0.5])) == '0.5'


def test_seeds_are_summarised():
  summary = summarize([{'accuracy': seed / 10, 'f1': 1.0} for seed in (1, 3)])
  assert summary['accuracy'].mean == pytest.approx(0.2)
  assert summary['f1'].std == 0.0


def test_metrics_must_be_the_same_for_all_seeds():
  with pytest.raises(ValueError, match='f1'):
    summarize([{'accuracy': 1.0}, {'accuracy': 1.0, 'f1': 0.5}])
  with pytest.raises(ValueError, match='results'):
    summarize([])
