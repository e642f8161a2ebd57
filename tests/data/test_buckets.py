"""Bucket widths: bounded, sufficient, and as good as any choice of as many."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from prompt_jax.data.batches import choose_buckets
from prompt_jax.data.example import Example
from prompt_jax.errors import UserError


def example(inputs, targets=2):
  return Example(np.ones(inputs, np.int32), np.ones(targets, np.int32), '', '', None, {}, 'made up')


LENGTHS = strategies.lists(
  strategies.tuples(strategies.integers(1, 70), strategies.integers(1, 9)), min_size=1, max_size=40
)


@hypothesis.settings(deadline=None)
@hypothesis.given(lengths=LENGTHS, most=strategies.integers(1, 5))
def test_every_example_fits_the_least_bucket_that_it_fits(lengths, most):
  examples = [example(*pair) for pair in lengths]
  buckets = choose_buckets(examples, most)
  assert len(buckets.inputs) == len(buckets.targets) <= most
  assert all(width % 8 == 0 for width in buckets.inputs)
  assert list(buckets.targets) == sorted(buckets.targets)
  for (inputs, targets), bucket in zip(lengths, buckets.member, strict=True):
    assert inputs <= buckets.inputs[bucket]
    assert targets <= buckets.targets[bucket]
    assert bucket == 0 or inputs > buckets.inputs[bucket - 1]


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(
  lengths=strategies.lists(strategies.integers(1, 64), min_size=1, max_size=40),
  most=strategies.integers(1, 4),
)
def test_no_other_widths_waste_less(lengths, most):
  buckets = choose_buckets([example(n) for n in lengths], most, min_saving=0.0)
  cost = sum(buckets.inputs[b] for b in buckets.member)
  longest = buckets.inputs[-1]
  least = min(
    sum(min(w for w in (*some, longest) if w >= n) for n in lengths)
    for some in itertools.combinations(range(8, longest, 8), min(most, longest // 8) - 1)
  )
  assert cost == least


def test_a_bucket_that_saves_little_is_not_made():
  examples = [example(62)] * 100 + [example(50)]
  assert choose_buckets(examples, 4).inputs == (64,)
  examples = [example(62)] * 100 + [example(10)] * 100
  assert choose_buckets(examples, 4).inputs == (16, 64)
  assert choose_buckets(examples, 4, multiple=128).inputs == (128,)


def test_impossible_bounds():
  with pytest.raises(UserError, match='examples'):
    choose_buckets([])
  with pytest.raises(UserError, match='buckets=0'):
    choose_buckets([example(3)], 0)
