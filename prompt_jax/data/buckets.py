"""Few row widths that waste little padding, chosen from the lengths of the data itself.

Every width is one compiled program, so their number is bounded, and one that saves little is not
made.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from prompt_jax.data.example import Example
from prompt_jax.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False)
class Buckets:
  """The shapes of the batches of a data set.

  Attributes:
    inputs: widths of encoder rows, ascending, multiples of the multiple asked for.
    targets: width of decoder rows for each of them, never descending, so that what fits a bucket
      fits every longer one.
    member: int64[n] the bucket of each example.
  """

  inputs: tuple[int, ...]
  targets: tuple[int, ...]
  member: np.ndarray


def choose_buckets(
  examples: Sequence[Example], most: int = 4, multiple: int = 8, min_saving: float = 0.05
) -> Buckets:
  """At most `most` widths that minimise the padded tokens of one pass.

  Args:
    examples: at least one.
    most: bound on the number of shapes.
    multiple: widths are rounded up to it; 8 for CPU and GPU, 128 for TPU.
    min_saving: a further width is made only if it saves this share of the padded tokens.

  Raises:
    UserError: no examples, or an impossible bound.
  """
  if not examples:
    raise UserError('There are no examples to make batches of.')
  if most < 1 or multiple < 1:
    raise UserError(f'buckets={most} and multiple={multiple} must both be at least 1.')
  lengths = np.array([len(e.inputs) for e in examples])
  widths, counts = np.unique(-(-lengths // multiple) * multiple, return_counts=True)
  chosen = _fewest(widths, counts, most, min_saving)
  member = np.searchsorted(chosen, lengths)
  targets = np.zeros(len(chosen), np.int64)
  np.maximum.at(targets, member, [len(e.targets) for e in examples])
  longest = np.maximum.accumulate(targets)
  return Buckets(tuple(chosen.tolist()), tuple(longest.tolist()), member)


def _fewest(widths: np.ndarray, counts: np.ndarray, most: int, min_saving: float) -> np.ndarray:
  """As many widths as pay; the last is always the longest."""
  best = [widths[-1:]]
  for number in range(2, min(most, len(widths)) + 1):
    best.append(_optimal(widths, counts, number))
    before, after = (_padded(widths, counts, chosen) for chosen in best[-2:])
    if after > (1 - min_saving) * before:
      return best[-2]
  return best[-1]


def _padded(widths: np.ndarray, counts: np.ndarray, chosen: np.ndarray) -> int:
  return int(chosen[np.searchsorted(chosen, widths)] @ counts)


def _optimal(widths: np.ndarray, counts: np.ndarray, number: int) -> np.ndarray:
  """The best `number` widths by dynamic programming over the n distinct ones, O(number * n^2)."""
  n = len(widths)
  total = np.concatenate([[0], np.cumsum(counts)])
  # cost[j]: padded tokens of the examples up to width j, when width j is a bucket.
  cost = widths * total[1:]
  came_from = np.zeros((number, n), np.int64)
  for level in range(1, number):
    step = np.full(n, np.iinfo(np.int64).max)
    for j in range(level, n):
      options = cost[level - 1 : j] + widths[j] * (total[j + 1] - total[level : j + 1])
      step[j] = options.min()
      came_from[level, j] = level - 1 + options.argmin()
    cost = step
  picked = [n - 1]
  for level in range(number - 1, 0, -1):
    picked.append(int(came_from[level, picked[-1]]))
  return widths[picked[::-1]]
