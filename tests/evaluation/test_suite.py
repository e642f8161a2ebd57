"""Several tasks in one evaluation: the same as each by itself, their mean, and the gap."""

import dataclasses

import jax
import numpy as np
import pytest

from prompt_jax.data.example import Lengths, TextExample, text_task
from prompt_jax.data.mixture import Mixing, mixture
from prompt_jax.errors import UserError
from prompt_jax.evaluation import suite
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.testing import tiny

VOCABULARY = tiny.Vocabulary()
LABELS = ('yes', 'not', 'may')


def task(name, labels, metrics, rows=5):
  texts = [
    TextExample(f'{name} {"abc" * i}', LABELS[i % 3], i % 3 if labels else None)
    for i in range(1, rows + 1)
  ]
  return text_task(name, {'test': lambda: texts}, labels, metrics)


PARTS = (
  task('a', LABELS, ['f1_macro', 'accuracy']),
  task('b', None, ['exact_match'], 3),
  task('c', LABELS, ['accuracy'], 4),
)


@pytest.fixture(scope='module')
def tuned():
  model = PromptedT5(T5(tiny.config()))
  return model, jax.jit(model.init)(jax.random.key(2), tiny.batch())


def test_it_is_each_task_by_itself(tuned):
  whole = mixture(PARTS, Mixing())
  options = {'max_target_length': 6, 'batch_size': 4}
  examples = whole.load('test', VOCABULARY, Lengths(32, 6))
  shuffled = [examples[i] for i in (7, 0, 11, 3, 9, 2, 1, 10, 4, 5, 8, 6)]
  both = suite.evaluator(tuned[0], VOCABULARY, whole, **options)
  assert isinstance(both, suite.Suite)
  counted = []
  scores, predictions = both(tuned[1], shuffled, counted.append)
  assert sum(counted) == len(examples)
  wanted = {}
  for part in PARTS:
    alone = suite.evaluator(tuned[0], VOCABULARY, part, **options)
    assert isinstance(alone, Evaluator)
    mine = [e for e in shuffled if e.task == part.name]
    found, theirs = alone(tuned[1], mine)
    wanted |= {f'{part.name}/{k}': v for k, v in found.items()}
    ours = [p for p in predictions if p.task == part.name]
    for p, q in zip(ours, theirs, strict=True):
      assert p.input == q.input
      assert p.prediction == q.prediction
      assert p.scores == pytest.approx(q.scores, abs=1e-4)
  mean = (wanted['a/f1_macro'] + wanted['b/exact_match'] + wanted['c/accuracy']) / 3
  assert scores == pytest.approx({'mean': mean, **wanted})
  assert list(scores) == suite.scores_of(whole)
  drawn = both.distribution(shuffled, predictions, 40)
  assert list(drawn) == list(scores)
  firsts = (drawn['a/f1_macro'], drawn['b/exact_match'], drawn['c/accuracy'])
  np.testing.assert_allclose(drawn['mean'], sum(firsts) / 3)
  calibrated = both.calibration(shuffled, predictions)
  assert list(calibrated) == ['a', 'c']
  assert sum(b.examples for b in calibrated['c'].bins) == 4
  assert not both.ranks
  # One function for the two that have the same labels.
  assert both._sharing == {'a': ['a', 'c'], 'b': ['b']}
  with pytest.raises(UserError, match='task'):
    both(tuned[1], [dataclasses.replace(examples[0], task='d')])
  with pytest.raises(UserError, match='examples'):
    both(tuned[1], [])


def test_a_task_that_says_itself_what_is_right_is_read_by_itself(tuned):
  own = dataclasses.replace(task('w', None, ['accuracy'], 2), right=lambda e, t: True)
  whole = mixture([PARTS[1], own], Mixing())
  both = suite.evaluator(tuned[0], VOCABULARY, whole, max_target_length=6, batch_size=4)
  examples = whole.load('test', VOCABULARY, Lengths(32, 6))
  scores, predictions = both(tuned[1], examples)
  assert scores['w/accuracy'] == 100
  assert [p.correct for p in predictions if p.task == 'w'] == [True, True]
  assert not any(p.correct for p in predictions if p.task == 'b')


def test_the_gap_is_what_is_lost_by_transfer():
  scores = {'en': {'f1': 80.0, 'em': 1.0}, 'de': {'f1': 60.0}, 'sw': {'f1': 30.0}}
  summary = suite.summarise(scores, 'en')
  assert summary['gap'] == 80 - 45
  assert summary['mean'] == pytest.approx(170 / 3)
  assert summary['en/em'] == 1.0
  assert 'gap' not in suite.summarise(scores)
  assert 'gap' not in suite.summarise({'en': scores['en']}, 'en')
  assert suite.summarise({}) == {}
