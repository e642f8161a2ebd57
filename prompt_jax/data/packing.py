"""Batches whose rows hold several examples each, so that little of them is padding.

Like the batches of `batches`, they are a pure function of (seed, number): an epoch reads every
example once, and a batch holds as many examples as an unpacked one.
"""

import dataclasses
import itertools
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.batch import Batch
from prompt_jax.data.batches import ExampleOrder, NumberedStream, check_batch
from prompt_jax.data.example import Example
from prompt_jax.errors import UserError
from prompt_jax.features import Numbers, ids_of

# Number of batches that candidate shapes are tried on.
TRIED = 64


class Slots(NamedTuple):
  """The positions that every example reserves for prompt rows in one stack.

  Attributes:
    rows: P; 0 where the prompt needs no positions among the tokens.
    placement: where they are, see `injections.Injection.placement`.
  """

  rows: int = 0
  placement: str = 'before'


NO_SLOTS = Slots()


class Shape(NamedTuple):
  """Rows of a batch, and positions of an encoder and of a decoder row."""

  rows: int
  inputs: int
  targets: int


class Packed(NamedTuple):
  """The examples of one batch, the row of each, and how many rows there are."""

  examples: np.ndarray
  row: np.ndarray
  rows: int


@dataclasses.dataclass
class PackedStream(NumberedStream):
  """Training batches without end, of packed rows.

  All batches have the same shape, chosen from the data; in the rare case that the examples of one
  do not fit, it has twice the rows (or three times, ...).

  Attributes:
    examples: at least one.
    batch_size: examples of every batch; the last one of an epoch may have fewer.
    seed: of the order.
    row_length: most positions of an encoder row, reserved ones included.
    look_ahead: number of further examples that a batch may choose from. Those that it skips come
      first in the next one.
    encoder: positions that an example reserves in its encoder row.
    decoder: the same in its decoder row.
    multiple: lengths of rows are multiples of it.
    row_multiple: the number of rows is one of it (microbatches and devices need equal parts).
    features: values of the features that `Batch.features` is to have, see `features`.
    quota: task name -> examples of it in an epoch (`mixture.quotas`); None for every example once.
    number: the next batch, counted from 0 over all epochs.
  """

  examples: Sequence[Example]
  batch_size: int
  seed: int = 0
  row_length: int = 512
  look_ahead: int = 256
  encoder: Slots = NO_SLOTS
  decoder: Slots = NO_SLOTS
  multiple: int = 8
  row_multiple: int = 1
  features: Numbers = dataclasses.field(default_factory=dict)
  quota: Mapping[str, int] | None = None
  number: int = 0

  def __post_init__(self):
    check_batch(self.examples, self.batch_size, self.seed)
    for name, least in (('look_ahead', 0), ('row_length', 1)):
      if getattr(self, name) < least:
        raise UserError(f'{name} is {getattr(self, name)}; it must be at least {least}.')
    # Positions that an example takes, reserved ones included.
    inputs = [len(e.inputs) + self.encoder.rows for e in self.examples]
    targets = [len(e.targets) + self.decoder.rows for e in self.examples]
    self._costs = list(zip(inputs, targets, strict=True))
    if max(inputs) > self.row_length:
      raise UserError(
        f'The longest example takes {max(inputs)} positions, {self.encoder.rows} of them for the '
        f'prompt, and a packed row has {self.row_length}. Set row_length to {max(inputs)} or more, '
        'set a lower input_length, or do not pack.',
        ['row_length', 'input_length', 'pack'],
      )
    self._ids = ids_of(self.examples, self.features)
    self._order = ExampleOrder(self.examples, self.quota, self._ids)
    self.shape = self._choose_shape()
    self._epoch: tuple[int, list[Packed]] | None = None

  @property
  def batches_per_epoch(self) -> int:
    return -(-self._order.size // self.batch_size)

  @property
  def filled(self) -> float:
    """The share of encoder positions that are not padding, in an epoch where all batches fit."""
    inputs = np.array([inputs for inputs, _ in self._costs])
    needed = inputs.sum()
    if self.quota:
      tasks = np.asarray([e.task for e in self.examples])
      needed = sum(n * inputs[tasks == name].mean() for name, n in self.quota.items())
    return float(needed) / (self.batches_per_epoch * self.shape.rows * self.shape.inputs)

  def batch(self, number: int) -> Batch:
    return make_packed(
      self.examples,
      self.packed(number),
      self.shape,
      encoder=self.encoder,
      decoder=self.decoder,
      ids=self._ids,
    )

  def packed(self, number: int) -> Packed:
    """Which examples batch `number` holds, and where."""
    epoch, within = divmod(number, self.batches_per_epoch)
    if self._epoch is None or self._epoch[0] != epoch:
      self._epoch = (epoch, self._pack(self._order.epoch(self.seed, epoch), self.shape))
    return self._epoch[1][within]

  def _pack(self, order: np.ndarray, shape: Shape) -> list[Packed]:
    return pack(order.tolist(), self._costs, self.batch_size, shape, self.look_ahead)

  def _choose_shape(self) -> Shape:
    """The fewest rows that take a batch, then the lengths that leave the fewest positions."""
    some = self._order.epoch(0, 0)[: TRIED * self.batch_size]  # the same for every seed
    of_some = np.array(self._costs)[some]
    in_a_batch = of_some.mean(0) * min(self.batch_size, len(some))
    longest = np.max(self._costs, axis=0)
    rows_of = lambda shape: sum(packed.rows for packed in self._pack(some, shape))
    whole = self.row_length // self.multiple * self.multiple or self.row_length
    whole = max(whole, longest[0])  # a row that is no multiple may be needed for the longest

    up = lambda x, multiple: int(-(-x // multiple) * multiple)
    shape = Shape(0, int(whole), int(longest[1]) * self.batch_size)
    batches, tried = -(-len(some) // self.batch_size), []
    for rows in itertools.count(up(in_a_batch[0] / whole, self.row_multiple), self.row_multiple):
      tried.append((rows_of(shape._replace(rows=rows)), rows))
      if tried[-1][0] == batches * rows:  # no batch needed more
        break
    rows = min(tried)[1]
    shape = shape._replace(rows=rows)
    for name, axis in (('inputs', 0), ('targets', 1)):
      besides = shape.inputs if name == 'targets' else 0
      first = up(max(longest[axis], in_a_batch[axis] / rows), self.multiple)
      most = getattr(shape, name)
      lengths = [*range(min(first, most), most, self.multiple), most]
      # From some length on no batch needs more rows, and a longer one is only worse.
      shapes, least = [], batches * rows
      for n in lengths:
        candidate = shape._replace(**{name: n})
        needed = rows_of(candidate)
        shapes.append((needed * (n + besides), candidate))
        if needed == least:
          break
      shape = min(shapes)[1]
    return shape

  def identity(self) -> dict[str, int]:
    return {
      'seed': self.seed,
      'batch_size': self.batch_size,
      'row_length': self.row_length,
      'look_ahead': self.look_ahead,
      'encoder_slots': self.encoder.rows,
      'decoder_slots': self.decoder.rows,
      'multiple': self.multiple,
      'row_multiple': self.row_multiple,
      'digest': self._order.digest,
    }


def pack(
  order: Sequence[int],
  costs: Sequence[tuple[int, int]],
  batch_size: int,
  shape: Shape,
  look_ahead: int,
) -> list[Packed]:
  """First fit: each example in turn goes into the first row that has room for it.

  Args:
    order: of the examples.
    costs: positions in an encoder and in a decoder row that each takes; at most those of a row.
    batch_size: examples of a batch.
    shape: of its rows.
    look_ahead: more examples that a batch may choose from.

  Returns:
    The batches; in each, the examples in the order in which they stand in their rows.
  """
  batches, waiting, ahead = [], list(order[: batch_size + look_ahead]), batch_size + look_ahead
  while waiting:
    wanted = min(batch_size, len(waiting))
    examples: list[int] = []
    row: list[int] = []
    free: list[tuple[int, int]] = []
    while len(examples) < wanted:  # once, unless those in sight do not fit
      free += [(shape.inputs, shape.targets)] * shape.rows
      passed = []
      for i, example in enumerate(waiting):
        if len(examples) == wanted:
          passed += waiting[i:]
          break
        x, y = costs[example]
        found = next((r for r, (a, b) in enumerate(free) if a >= x and b >= y), None)
        if found is None:
          passed.append(example)
          continue
        free[found] = (free[found][0] - x, free[found][1] - y)
        examples.append(example)
        row.append(found)
      waiting = passed
    batches.append(Packed(np.array(examples), np.array(row), len(free)))
    waiting += order[ahead : ahead + wanted]
    ahead += wanted
  return batches


def make_packed(
  examples: Sequence[Example],
  packed: Packed,
  shape: Shape,
  *,
  encoder: Slots = NO_SLOTS,
  decoder: Slots = NO_SLOTS,
  ids: Mapping[str, np.ndarray] = types.MappingProxyType({}),
) -> Batch:
  """The arrays of a batch of packed rows.

  A decoder row has, for each example, its reserved positions and the targets shifted right by one;
  the targets are those of its last positions.
  """
  inputs = _StackRows(packed.rows, shape.inputs)
  targets = _StackRows(packed.rows, shape.targets)
  wanted, weights = np.zeros_like(targets.tokens), np.zeros(targets.tokens.shape, np.float32)
  most = shape.inputs // (encoder.rows + 1)  # examples of a row: each has a token at least
  features = {name: np.zeros((packed.rows, most), np.int32) for name in ids}
  for i, row in zip(packed.examples.tolist(), packed.row.tolist(), strict=True):
    example = examples[i]
    last = inputs.add(row, example.inputs, encoder) - 1
    for name, of in features.items():
      of[row, inputs.segments[row, last] - 1] = ids[name][i]
    end = targets.add(row, np.concatenate([[0], example.targets[:-1]]), decoder)
    wanted[row, end - len(example.targets) : end] = example.targets
    weights[row, end - len(example.targets) : end] = 1
  # NumPy arrays where the type says jax.Array: they go to the device when the step is called.
  arrays: dict[str, Any] = {
    'encoder_input_tokens': inputs.tokens,
    'decoder_input_tokens': targets.tokens,
    'decoder_target_tokens': wanted,
    'decoder_loss_weights': weights,
    'features': features,
    'encoder_segment_ids': inputs.segments,
    'encoder_positions': inputs.positions,
    'decoder_segment_ids': targets.segments,
    'decoder_positions': targets.positions,
    'prompt_slot': inputs.slot if encoder.rows else None,
    'decoder_prompt_slot': targets.slot if decoder.rows else None,
  }
  return Batch(**arrays)


class _StackRows:
  """The rows of one stack while they are filled."""

  def __init__(self, rows: int, length: int):
    self.tokens, self.segments, self.positions = (
      np.zeros((rows, length), np.int32) for _ in range(3)
    )
    self.slot = np.full((rows, length), -1, np.int32)
    self._end, self._count = [0] * rows, [0] * rows

  def add(self, row: int, tokens: np.ndarray, slots: Slots) -> int:
    """Appends one example to a row; returns where it ends."""
    start, n = self._end[row], len(tokens)
    end = start + n + slots.rows
    first = {'before': 0, 'after_bos': 1, 'before_eos': n - 1, 'after_eos': n}[slots.placement]
    own = np.insert(np.full(n, -1, np.int32), first, np.arange(slots.rows))
    self.slot[row, start:end] = own
    self.tokens[row, start:end][own < 0] = tokens
    self._count[row] += 1
    self.segments[row, start:end] = self._count[row]
    self.positions[row, start:end] = np.arange(end - start)
    self._end[row] = end
    return end
