"""What training streams share: numbered batches, so that one number says where to continue.

The order of an epoch comes from a counter-based generator keyed by (seed, epoch).
"""

import abc
import zlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from prompt_jax.batch import Batch
from prompt_jax.data import mixture
from prompt_jax.data.example import Example
from prompt_jax.errors import UserError


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
    digest: a checksum of the token ids and the quota.
  """

  def __init__(self, examples: Sequence[Example], quota: Mapping[str, int] | None = None):
    """Takes the examples and, for a mixture, task name -> examples of it in an epoch.

    Without a quota an epoch holds every example once.
    """
    self._count, self._quota = len(examples), quota
    self.size = sum(quota.values()) if quota else len(examples)
    self.digest = digest(examples)
    if quota:
      self._tasks = np.asarray([e.task for e in examples])
      self.digest = zlib.crc32(repr(sorted(quota.items())).encode(), self.digest)

  def epoch(self, seed: int, epoch: int) -> np.ndarray:
    """int64[size] indices of the examples of an epoch."""
    if self._quota:
      return mixture.order(self._tasks, self._quota, seed, epoch)
    return np.random.Generator(np.random.Philox(key=[seed, epoch])).permutation(self._count)


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
