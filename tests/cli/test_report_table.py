"""The systems that a tuned prompt is put beside."""

import dataclasses

import pytest

from prompt_jax.data.example import Lengths, TextExample, text_task
from prompt_jax.data.mixture import Mixing, mixture
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.evaluation.findings import MAJORITY, WORDS, baselines


def task(name, labels=('yes', 'no'), metrics=('accuracy',)):
  texts = [TextExample(f'{name} {i}', (labels or 'ab')[i % 3 > 0], i % 3 > 0 if labels else None)
           for i in range(6)]  # fmt: skip
  return text_task(name, {'train': lambda: texts, 'test': lambda: texts}, labels, metrics)


def test_texts_without_words_have_no_bag_of_words():
  alone = task('a')  # "a 0", "a 1", ...
  splits = [alone.load(s, ByteVocabulary(), Lengths(20, 8)) for s in ('train', 'test')]
  assert list(baselines(*splits, alone)) == [MAJORITY]
  named = task('abc')
  splits = [named.load(s, ByteVocabulary(), Lengths(20, 8)) for s in ('train', 'test')]
  assert list(baselines(*splits, named)) == [MAJORITY, WORDS]


@pytest.mark.parametrize(
  ('other', 'mean'),
  [
    (task('b'), True),
    (task('b', metrics=('f1_macro', 'accuracy')), False),
    (task('b', labels=None, metrics=('rouge',)), False),
    (dataclasses.replace(task('b'), score=lambda examples, texts: {'own': 1.0}), False),
  ],
)
def test_a_mean_of_accuracies_stands_only_beside_a_mean_of_accuracies(other, mean):
  both = mixture([task('a'), other], Mixing())
  splits = [both.load(s, ByteVocabulary(), Lengths(20, 8)) for s in ('train', 'test')]
  scores = baselines(*splits, both)[MAJORITY]
  assert scores['a/accuracy'] == pytest.approx(100 * 4 / 6)
  assert ('mean' in scores) == mean
