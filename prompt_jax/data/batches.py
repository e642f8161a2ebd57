"""Batches as a pure function of (seed, number): shuffled, bucketed by length, restartable anywhere.

An epoch reads every example once. Its order comes from a counter-based generator keyed by (seed,
epoch), so that nothing but one number has to be saved to go on mid-epoch.
"""

import dataclasses
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from prompt_jax.batch import Batch
from prompt_jax.data import mixture
from prompt_jax.data.buckets import Buckets, choose_buckets
from prompt_jax.data.example import Example
from prompt_jax.data.vocabulary import EOS_ID
from prompt_jax.errors import UserError


class BatchRows(NamedTuple):
  """What one batch holds: the bucket whose widths it has, and which examples."""

  bucket: int
  examples: np.ndarray


@dataclasses.dataclass
class BatchStream:
  """Training batches without end.

  Attributes:
    examples: at least one.
    batch_size: B, rows of every batch.
    seed: of the order.
    buckets: most different shapes of a batch (see `buckets.choose_buckets`).
    multiple: input widths are multiples of it.
    last: an epoch's last batch, if the examples do not fill it: 'pad' fills it with rows of no
      weight, so that an epoch holds every example once; 'drop' leaves its examples out (others in
      each epoch).
    task_ids: task name -> `Batch.task_id`; None leaves it out.
    quota: task name -> examples of it in an epoch (`mixture.quotas`); None for every example once.
    number: the next batch, counted from 0 over all epochs.
  """

  examples: Sequence[Example]
  batch_size: int
  seed: int = 0
  buckets: int = 4
  multiple: int = 8
  last: Literal['pad', 'drop'] = 'pad'
  task_ids: Mapping[str, int] | None = None
  quota: Mapping[str, int] | None = None
  number: int = 0

  def __post_init__(self):
    check_batch(self.examples, self.batch_size, self.seed)
    if self.last not in ('pad', 'drop'):
      raise UserError(f"last is {self.last!r}; expected 'pad' or 'drop'.")
    self._tasks = np.asarray([e.task for e in self.examples]) if self.quota else None
    if self.last == 'drop' and self.epoch_size < self.batch_size:
      raise UserError(
        f'{self.epoch_size} examples do not fill one batch of {self.batch_size}; take a smaller '
        "batch, or last='pad'."
      )
    self.shapes = choose_buckets(self.examples, self.buckets, self.multiple)
    self.digest = digest(self.examples)
    if self.quota:
      self.digest = zlib.crc32(repr(sorted(self.quota.items())).encode(), self.digest)
    self._epoch: tuple[int, list[BatchRows]] | None = None

  @property
  def epoch_size(self) -> int:
    return sum(self.quota.values()) if self.quota else len(self.examples)

  @property
  def batches_per_epoch(self) -> int:
    whole, rest = divmod(self.epoch_size, self.batch_size)
    return whole + (1 if rest and self.last == 'pad' else 0)

  @property
  def position(self) -> dict[str, int]:
    """All that has to be saved; the other numbers tell whether it fits when it is restored."""
    return {'number': self.number, **self._identity()}

  def restore(self, position: Mapping[str, int]) -> None:
    """Goes on where `position` was taken.

    Raises:
      UserError: the position comes from other examples or settings, so that going on would repeat
        some examples and miss others.
    """
    check_position(position, self._identity())
    self.number = position['number']

  def __iter__(self) -> Iterator[Batch]:
    while True:
      batch = self.batch(self.number)
      self.number += 1
      yield batch

  def batch(self, number: int) -> Batch:
    """Batch `number`, whatever was read before."""
    rows = self.rows(number)
    return make_batch(self.examples, rows, self.shapes, self.batch_size, self.task_ids)

  def upcoming_shapes(self, count: int) -> list[Batch]:
    """A batch of each shape among the next `count`, in the order in which they come."""
    numbers = range(self.number, self.number + min(count, self.batches_per_epoch))
    buckets = dict.fromkeys(self.rows(number).bucket for number in numbers)
    nothing = np.zeros(0, np.int64)
    return [
      make_batch(self.examples, BatchRows(b, nothing), self.shapes, self.batch_size, self.task_ids)
      for b in buckets
    ]

  def rows(self, number: int) -> BatchRows:
    """Which examples batch `number` holds."""
    epoch, within = divmod(number, self.batches_per_epoch)
    if self._epoch is None or self._epoch[0] != epoch:
      self._epoch = (epoch, self._plan(epoch))
    return self._epoch[1][within]

  def _plan(self, epoch: int) -> list[BatchRows]:
    rng = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
    if self.quota is None or self._tasks is None:
      order = rng.permutation(len(self.examples))
    else:
      order = mixture.order(self._tasks, self.quota, self.seed, epoch)
    plan = cut(order, self.shapes.member, self.batch_size)
    if self.last == 'drop':
      plan = [rows for rows in plan if len(rows.examples) == self.batch_size]
    # By length, the batches came shortest first. Which width comes when is the same for every seed,
    # so that runs of several seeds can train together without padding one to the width of another.
    widths = np.random.Generator(np.random.Philox(key=[2**32, epoch]))
    return [plan[i] for i in widths.permutation(len(plan))]

  def _identity(self) -> dict[str, int]:
    return {
      'seed': self.seed,
      'batch_size': self.batch_size,
      'buckets': self.buckets,
      'multiple': self.multiple,
      'batches_per_epoch': self.batches_per_epoch,
      'digest': self.digest,
    }


def evaluation_batches(
  examples: Sequence[Example],
  batch_size: int,
  buckets: int = 4,
  multiple: int = 8,
  task_ids: Mapping[str, int] | None = None,
) -> Iterator[tuple[Batch, np.ndarray]]:
  """Every example once, shortest first.

  Yields:
    (batch, int64[n]): row i of the batch is example number `[i]` of `examples`. Rows from n on,
    in the last batch alone, are padding without weight.
  """
  check_batch(examples, batch_size)
  shapes = choose_buckets(examples, buckets, multiple)
  for rows in cut(np.arange(len(examples)), shapes.member, batch_size):
    yield make_batch(examples, rows, shapes, batch_size, task_ids), rows.examples


def cut(order: np.ndarray, member: np.ndarray, batch_size: int) -> list[BatchRows]:
  """Batches of one bucket each, in the order given; what is left over of a bucket goes on into the
  next longer one, so that only the last batch is ever short."""
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
  task_ids: Mapping[str, int] | None = None,
) -> Batch:
  """The padded arrays of a batch. Rows that only fill it up read one end-of-sequence id (a row of
  nothing but padding has nothing to attend to) and have no targets, hence no weight."""
  inputs = np.zeros((batch_size, shapes.inputs[rows.bucket]), np.int32)
  targets = np.zeros((batch_size, shapes.targets[rows.bucket]), np.int32)
  inputs[len(rows.examples) :, 0] = EOS_ID
  tasks = None if task_ids is None else np.zeros(batch_size, np.int32)
  for row, i in enumerate(rows.examples):
    example = examples[i]
    inputs[row, : len(example.inputs)] = example.inputs
    targets[row, : len(example.targets)] = example.targets
    if tasks is not None and task_ids is not None:
      tasks[row] = task_ids[example.task]
  # NumPy arrays where the type says jax.Array: they go to the device when the step is called.
  arrays: dict[str, Any] = {
    'encoder_input_tokens': inputs,
    'decoder_input_tokens': np.pad(targets[:, :-1], ((0, 0), (1, 0))),
    'decoder_target_tokens': targets,
    'decoder_loss_weights': (targets > 0).astype(np.float32),
    'task_id': tasks,
  }
  return Batch(**arrays)


def check_batch(examples: Sequence[Example], batch_size: int, seed: int = 0) -> None:
  """Refuses what no batch can be made of."""
  if batch_size < 1:
    raise UserError(f'The batch size is {batch_size}; it must be at least 1.')
  if not examples:
    raise UserError('There are no examples to make batches of.')
  if seed < 0:
    raise UserError(f'The seed is {seed}; it must not be negative.')


def check_position(position: Mapping[str, int], identity: Mapping[str, int]) -> None:
  """Refuses a position of other examples or settings than those of `identity`."""
  for name, value in identity.items():
    if name not in position:
      raise UserError(
        f'Cannot go on with this data: the run that is resumed had no {name}, so it was packed '
        'where this one is not, or the other way round. Give the same, or another output folder.'
      )
    if position[name] != value:
      what = 'the examples differ' if name == 'digest' else f'{name} was {position[name]}'
      now = '' if name == 'digest' else f' and is now {value}'
      raise UserError(
        f'Cannot go on with this data: {what}{now}. Use the data and settings of the run that is '
        'resumed, or another output folder.'
      )


def digest(examples: Sequence[Example]) -> int:
  """A checksum of all token ids, to tell the data of a resumed run from other data."""
  value = 0
  for example in examples:
    value = zlib.crc32(example.inputs.tobytes(), value)
    value = zlib.crc32(example.targets.tobytes(), value)
  return value
