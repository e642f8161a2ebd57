"""Batches as a pure function of (seed, number): shuffled, bucketed by length, restartable anywhere.

Batches of a stream are numbered, so that one number says where to continue. The order of an epoch
comes from a counter-based generator keyed by (seed, epoch).

The buckets are few row widths that waste little padding, chosen from the lengths of the data. Every
width is one compiled program, so their number is bounded, and one that saves little is not made.
"""

import abc
import dataclasses
import types
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from prompt_jax.batch import Batch
from prompt_jax.data import mixture
from prompt_jax.data.example import Example
from prompt_jax.data.vocabulary import EOS_ID
from prompt_jax.errors import UserError
from prompt_jax.features import Numbers, checksum, ids_of


class NumberedStream(abc.ABC):
  """Training batches without end, each a pure function of its number.

  Attributes:
    number: of the next batch, counted from 0 over all epochs.
  """

  number: int

  @abc.abstractmethod
  def batch(self, number: int) -> Batch:
    """Batch `number`, whatever was read before."""

  @abc.abstractmethod
  def identity(self) -> dict[str, int]:
    """What batches depend on: settings, and a checksum of the data."""

  def upcoming_shapes(self, count: int) -> list[Batch]:
    """A batch of each shape among the next `count`; here there is one shape."""
    return [self.batch(self.number)] if count else []

  @property
  def position(self) -> dict[str, int]:
    """All that has to be saved; what is not the number tells whether it fits when restored."""
    return {'number': self.number, **self.identity()}

  def restore(self, position: Mapping[str, int]) -> None:
    """Continues where `position` was taken.

    Raises:
      UserError: the position is of other examples or settings, so that continuing would repeat
        some examples and miss others.
    """
    for name, value in self.identity().items():
      if name not in position:
        raise UserError(
          f'Cannot continue with this data: the run that is resumed had no {name}, so one of the '
          'two was packed and the other was not. Use the same setting, or another output folder.'
        )
      if position[name] != value:
        what = 'the examples differ' if name == 'digest' else f'{name} was {position[name]}'
        now = '' if name == 'digest' else f' and is now {value}'
        raise UserError(
          f'Cannot continue with this data: {what}{now}. Use the data and settings of the run that '
          'is resumed, or another output folder.'
        )
    self.number = position['number']

  def __iter__(self) -> Iterator[Batch]:
    while True:
      batch = self.batch(self.number)
      self.number += 1
      yield batch


class ExampleOrder:
  """The order in which the epochs of a stream read its examples.

  Attributes:
    size: examples of an epoch.
    digest: a checksum of the token ids, features and the quota.
  """

  def __init__(
    self,
    examples: Sequence[Example],
    quota: Mapping[str, int] | None,
    ids: Mapping[str, np.ndarray],
  ):
    """Takes the examples, the `ids` of their features and, for a mixture, task name -> examples of
    it in an epoch; without a quota an epoch holds every example once."""
    self._count, self._quota = len(examples), quota
    self.size = sum(quota.values()) if quota else len(examples)
    self.digest = digest(examples)
    self.digest = checksum(ids, self.digest) if ids else self.digest
    if quota:
      self._tasks = np.asarray([e.task for e in examples])
      self.digest = zlib.crc32(repr(sorted(quota.items())).encode(), self.digest)

  def epoch(self, seed: int, epoch: int) -> np.ndarray:
    """int64[size] indices of the examples of an epoch."""
    if self._quota:
      return mixture.order(self._tasks, self._quota, seed, epoch)
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(self._count)


class BatchRows(NamedTuple):
  """The bucket whose widths a batch has, and the indices of its examples."""

  bucket: int
  examples: np.ndarray


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


@dataclasses.dataclass
class BatchStream(NumberedStream):
  """Training batches without end.

  Attributes:
    examples: at least one.
    batch_size: B, rows of every batch.
    seed: of the order.
    buckets: most different shapes of a batch (see `choose_buckets`).
    multiple: input widths are multiples of it.
    last: an epoch's last batch, if the examples do not fill it: 'pad' fills it with rows of no
      weight, so that an epoch holds every example once; 'drop' leaves its examples out (others in
      each epoch).
    features: values of the features that `Batch.features` is to have, see `features`.
    quota: task name -> examples of it in an epoch (`mixture.quotas`); None for every example once.
    number: the next batch, counted from 0 over all epochs.
  """

  examples: Sequence[Example]
  batch_size: int
  seed: int = 0
  buckets: int = 4
  multiple: int = 8
  last: Literal['pad', 'drop'] = 'pad'
  features: Numbers = dataclasses.field(default_factory=dict)
  quota: Mapping[str, int] | None = None
  number: int = 0

  def __post_init__(self):
    check_batch(self.examples, self.batch_size, self.seed)
    if self.last not in ('pad', 'drop'):
      raise UserError(f"last is {self.last!r}; expected 'pad' or 'drop'.")
    self._ids = ids_of(self.examples, self.features) if self.features else {}
    self._order = ExampleOrder(self.examples, self.quota, self._ids)
    if self.last == 'drop' and self._order.size < self.batch_size:
      raise UserError(
        f'{self._order.size} examples do not fill one batch of {self.batch_size}; take a smaller '
        "batch, or last='pad'."
      )
    self.shapes = choose_buckets(self.examples, self.buckets, self.multiple)
    self._epoch: tuple[int, list[BatchRows]] | None = None

  @property
  def batches_per_epoch(self) -> int:
    whole, rest = divmod(self._order.size, self.batch_size)
    return whole + (1 if rest and self.last == 'pad' else 0)

  def batch(self, number: int) -> Batch:
    rows = self.rows(number)
    return make_batch(self.examples, rows, self.shapes, self.batch_size, self._ids)

  def upcoming_shapes(self, count: int) -> list[Batch]:
    """A batch of each shape among the next `count`, in the order in which they come."""
    numbers = range(self.number, self.number + min(count, self.batches_per_epoch))
    buckets = dict.fromkeys(self.rows(number).bucket for number in numbers)
    nothing = np.zeros(0, np.int64)
    return [
      make_batch(self.examples, BatchRows(b, nothing), self.shapes, self.batch_size, self._ids)
      for b in buckets
    ]

  def rows(self, number: int) -> BatchRows:
    """Which examples batch `number` holds."""
    epoch, within = divmod(number, self.batches_per_epoch)
    if self._epoch is None or self._epoch[0] != epoch:
      self._epoch = (epoch, self._plan(epoch))
    return self._epoch[1][within]

  def _plan(self, epoch: int) -> list[BatchRows]:
    plan = cut(self._order.epoch(self.seed, epoch), self.shapes.member, self.batch_size)
    if self.last == 'drop':
      plan = [rows for rows in plan if len(rows.examples) == self.batch_size]
    # `cut` gives the shortest batches first. The shuffled order of widths is the same for every
    # seed, so that runs of several seeds can train jointly without padding to each other's widths.
    widths = np.random.Generator(np.random.Philox(key=[2**32, epoch]))
    return [plan[i] for i in widths.permutation(len(plan))]

  def identity(self) -> dict[str, int]:
    return {
      'seed': self.seed,
      'batch_size': self.batch_size,
      'buckets': self.buckets,
      'multiple': self.multiple,
      'batches_per_epoch': self.batches_per_epoch,
      'digest': self._order.digest,
    }


def evaluation_batches(
  examples: Sequence[Example],
  batch_size: int,
  buckets: int = 4,
) -> Iterator[tuple[Batch, np.ndarray]]:
  """Every example once, shortest first.

  Yields:
    (batch, int64[n]): row i of the batch is example number `[i]` of `examples`. Rows from n on,
    in the last batch alone, repeat its examples: generation of an empty row might never end.
  """
  check_batch(examples, batch_size)
  shapes = choose_buckets(examples, buckets)
  for rows in cut(np.arange(len(examples)), shapes.member, batch_size):
    filled = rows._replace(examples=np.resize(rows.examples, batch_size))
    yield make_batch(examples, filled, shapes, batch_size), rows.examples


def cut(order: np.ndarray, member: np.ndarray, batch_size: int) -> list[BatchRows]:
  """Batches of one bucket each, in the order given.

  What is left over of a bucket moves on to the next longer one, so that only the last batch is
  ever short.
  """
  batches = []
  left = order[:0]
  for bucket in range(int(member.max()) + 1):
    waiting = np.concatenate([left, order[member[order] == bucket]])
    whole = len(waiting) - len(waiting) % batch_size
    batches += [BatchRows(bucket, part) for part in waiting[:whole].reshape(-1, batch_size)]
    left = waiting[whole:]
  if len(left):
    batches.append(BatchRows(int(member[left].max()), left))
  return batches


def make_batch(
  examples: Sequence[Example],
  rows: BatchRows,
  shapes: Buckets,
  batch_size: int,
  ids: Mapping[str, np.ndarray] = types.MappingProxyType({}),
) -> Batch:
  """The padded arrays of a batch.

  Rows that only fill the batch hold one end-of-sequence id, since a row of padding alone has
  nothing to attend to, and have no targets, hence no loss weight.
  """
  inputs = np.zeros((batch_size, shapes.inputs[rows.bucket]), np.int32)
  targets = np.zeros((batch_size, shapes.targets[rows.bucket]), np.int32)
  inputs[len(rows.examples) :, 0] = EOS_ID
  for row, i in enumerate(rows.examples):
    example = examples[i]
    inputs[row, : len(example.inputs)] = example.inputs
    targets[row, : len(example.targets)] = example.targets
  # NumPy arrays where the type says jax.Array: they go to the device when the step is called.
  arrays: dict[str, Any] = {
    'encoder_input_tokens': inputs,
    'decoder_input_tokens': np.pad(targets[:, :-1], ((0, 0), (1, 0))),
    'decoder_target_tokens': targets,
    'decoder_loss_weights': (targets > 0).astype(np.float32),
    'features': {
      name: np.pad(of[rows.examples], (0, batch_size - len(rows.examples)))
      for name, of in ids.items()
    },
  }
  return Batch(**arrays)


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
  """Adds widths while each saves enough; the last is always the longest."""
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


def check_batch(examples: Sequence[Example], batch_size: int, seed: int = 0) -> None:
  """Refuses what no batch can be made of."""
  if batch_size < 1:
    raise UserError(f'The batch size is {batch_size}; it must be at least 1.', ['batch_size'])
  if not examples:
    raise UserError('There are no examples to make batches of.')
  if seed < 0:
    raise UserError(f'The seed is {seed}; it must not be negative.', ['seed'])


def digest(examples: Sequence[Example]) -> int:
  """A checksum of all token ids, to tell the data of a resumed run from other data."""
  value = 0
  for example in examples:
    value = zlib.crc32(example.inputs.tobytes(), value)
    value = zlib.crc32(example.targets.tobytes(), value)
  return value
