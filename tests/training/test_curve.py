"""The curve of a run: short runs, and the baselines in it."""

import pytest

from prompt_jax.training.records import curve_png
from prompt_jax.training.settings import Settings

EVALS = [{'step': s, 'kind': 'eval', 'accuracy': 50.0 + s} for s in (10, 20)]


def train(*steps):
  return [{'step': s, 'kind': 'train', 'loss': 1 / s} for s in steps]


def test_one_record_is_seen():
  assert curve_png(train(4)) != curve_png([])


def test_baselines_are_drawn():
  records = [*train(10, 20), *EVALS]
  plain = curve_png(records, 'accuracy')
  assert curve_png(records, 'accuracy', {'majority class': 52.0}) != plain
  assert curve_png(records, 'accuracy', {}) == plain


@pytest.mark.parametrize(('steps', 'every'), [(1000, 50), (100, 50), (99, 9), (30, 3), (2, 1)])
def test_a_short_run_has_a_curve(steps, every):
  assert Settings(steps=steps).record_every == every
