"""Held-out rows: stratified, never torn apart, independent of the order of the rows."""

import collections
import random

import hypothesis
from hypothesis import strategies

from prompt_jax.data.splits import held_out

ROWS = strategies.lists(
  strategies.tuples(strategies.integers(0, 30), strategies.sampled_from('ab')), max_size=60
)


@hypothesis.given(rows=ROWS, seed=strategies.integers(0, 3))
@hypothesis.example(rows=[(0, 'a'), *[(1, 'a')] * 7, (2, 'a')], seed=0)
def test_groups_stay_together_and_every_class_keeps_training_rows(rows, seed):
  groups, classes = [g for g, _ in rows], [c for _, c in rows]
  where = held_out(groups, classes, {'validation': 0.2, 'test': 0.3}, seed)
  assert len(where) == len(rows)
  by_group = collections.defaultdict(set)
  for group, split in zip(groups, where, strict=True):
    by_group[group].add(split)
  assert all(len(splits) == 1 for splits in by_group.values())
  first = dict(reversed(list(zip(groups, classes, strict=True))))
  for label in set(first.values()):
    drawn = [by_group[g] for g, c in first.items() if c == label]
    assert {'train'} in drawn
    if len(drawn) >= 3:
      assert {'validation'} in drawn
      assert {'test'} in drawn


@hypothesis.given(seed=strategies.integers(0, 1000))
def test_the_order_of_rows_changes_nothing(seed):
  rows = [(i, i % 3) for i in range(40)]
  mixed = random.Random(seed).sample(rows, len(rows))
  plain = held_out(*zip(*rows, strict=True), {'test': 0.25}, 5)
  again = held_out(*zip(*mixed, strict=True), {'test': 0.25}, 5)
  assert dict(zip(mixed, again, strict=True)) == dict(zip(rows, plain, strict=True))


def test_shares_and_seeds():
  groups, classes = list(range(1000)), ['a'] * 900 + ['b'] * 100
  where = held_out(groups, classes, {'validation': 0.1, 'test': 0.2}, 0)
  counts = collections.Counter(zip(classes, where, strict=True))
  assert (counts['a', 'validation'], counts['a', 'test']) == (90, 180)
  assert (counts['b', 'validation'], counts['b', 'test']) == (10, 20)
  other = held_out(groups, classes, {'validation': 0.1, 'test': 0.2}, 1)
  assert other != where
