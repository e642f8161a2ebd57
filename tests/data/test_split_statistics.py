"""Lengths, cuts, unknown tokens, labels and repeats of a split, counted by hand."""

import numpy as np
import pytest

from prompt_jax.data.example import Lengths, TextExample, tokenize
from prompt_jax.data.splits import sample, split_statistics
from prompt_jax.testing import tiny

WORDS = tiny.Vocabulary()


def made(*texts, label=0):
  rows = [TextExample(text, 'yes', label) for text in texts]
  return tokenize(rows, WORDS, Lengths(8, 8), 't')


def test_facts_counted_by_hand():
  examples = made('a' * 3, 'a' * 7, 'a' * 8, 'a' * 3, 'b?')
  facts = split_statistics(examples, WORDS, Lengths(8, 4), train={'b?', 'c'})
  assert facts.examples == 5
  assert facts.inputs == (3, 4, 9, 9, 9)
  assert facts.targets == (4, 4, 4, 4, 4)
  assert facts.cut_inputs == pytest.approx(1 / 5)
  assert facts.cut_targets == 0
  assert split_statistics(examples, WORDS, Lengths(8, 3)).cut_targets == 1
  assert facts.unknown == pytest.approx(1 / (3 + 7 + 8 + 3 + 2 + 5 * 3))
  assert facts.labels == {'yes': 5}
  assert facts.repeated == 1
  assert facts.seen == 1
  assert split_statistics(made('a', label=None), WORDS, Lengths(8, 8)).labels == {}


def test_a_sample_is_drawn_in_order_and_the_same_each_time():
  examples = made(*(f'{i}' for i in range(50)))
  found = [int(e.inputs_text) for e in sample(examples, 20)]
  assert len(set(found)) == 20
  assert found == sorted(found)
  assert found != list(range(20))
  assert [int(e.inputs_text) for e in sample(examples, 20)] == found
  assert len(sample(examples, 80)) == 50
  assert np.ptp(found) > 25
