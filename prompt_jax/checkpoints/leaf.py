"""One array of a checkpoint that is known by name, shape and dtype, and read when it is needed."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from prompt_jax.errors import UserError

# Bytes that are read or checked at a time.
BLOCK = 2**26
# What weights may be stored in. Integers would be quantised weights, which mean something else.
KINDS = ('float16', 'bfloat16', 'float32', 'float64')


@dataclasses.dataclass(frozen=True)
class Leaf:
  """An array on disk or elsewhere.

  Attributes:
    shape: of the array.
    dtype: as stored.
    where: file or folder, and the name in it, for messages.
    fill: writes the values into a given array of `shape`, cast to the dtype of that array.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  where: str
  fill: Callable[[np.ndarray], None]

  def read(self, dtype: str | np.dtype | None = None) -> np.ndarray:
    """The array, in another dtype if one is given; what is read at a time is cast at once.

    Raises:
      UserError: the file is damaged, a value is not finite, or they are not floats.
    """
    check_kind(self.dtype.name, self.where)
    out = np.empty(self.shape, self.dtype if dtype is None else _dtype(dtype))
    self.fill(out)
    return out


Leaves = dict[str, Leaf]


def _dtype(name: str | np.dtype) -> np.dtype:
  import ml_dtypes

  return np.dtype(ml_dtypes.bfloat16) if name == 'bfloat16' else np.dtype(name)


def of_array(array: np.ndarray, where: str) -> Leaf:
  """An array that is in memory already, or mapped to it."""

  def fill(out: np.ndarray) -> None:
    for part in blocks(array.shape, array.dtype.itemsize):
      copy_finite(array[part], out[part], where)

  return Leaf(array.shape, array.dtype, where, fill)


def blocks(shape: tuple[int, ...], itemsize: int) -> Iterator[Any]:
  """Indices of consecutive rows that together are the array, each about BLOCK bytes."""
  if not shape:
    yield ...  # of an array, () would give a number and no view
    return
  row = itemsize * int(np.prod(shape[1:]))
  rows = max(BLOCK // max(row, 1), 1)
  for start in range(0, shape[0], rows):
    yield slice(start, min(start + rows, shape[0]))


def copy_finite(values: np.ndarray, out: np.ndarray, where: str) -> None:
  """Writes values into `out`.

  Raises:
    UserError: one of them is NaN or infinite.
  """
  check_finite(values, where)
  with np.errstate(over='ignore'):
    out[...] = values


def check_finite(values: np.ndarray, where: str) -> None:
  """Refuses NaN and infinity, with their number."""
  for part in blocks(values.shape, values.dtype.itemsize):
    finite = np.isfinite(values[part])
    if not finite.all():
      bad = int(finite.size - np.count_nonzero(finite))
      raise UserError(
        f'{where} holds NaN or infinity ({bad} or more of {values.size} values): the checkpoint is '
        'damaged or its training diverged. Copy it again, or take an earlier one.'
      )


def transposed(leaf: Leaf) -> Leaf:
  """The same values with the axes in reverse order."""
  return dataclasses.replace(leaf, shape=leaf.shape[::-1], fill=lambda out: leaf.fill(out.T))


def scaled(leaf: Leaf, factor: float) -> Leaf:
  """Every value times a number, in float32 whatever it is stored in: a product is no bfloat16."""

  def fill(out: np.ndarray) -> None:
    out[...] = leaf.read('float32') * np.float32(factor)

  return dataclasses.replace(leaf, dtype=np.dtype(np.float32), fill=fill)


def same_as(leaf: Leaf, copies: Sequence[Leaf]) -> Leaf:
  """The leaf, which refuses to be read where a copy of it has other values; both are named."""

  def fill(out: np.ndarray) -> None:
    stored = leaf.read()
    for copy in copies:
      if copy.shape != leaf.shape or not np.array_equal(copy.read(), stored):
        raise UserError(
          f'{leaf.where} and {copy.where.rpartition(": ")[2]} are names of one table and hold '
          'different values. A T5 of this package has one table for the encoder and the decoder.'
        )
    with np.errstate(over='ignore'):
      out[...] = stored

  return dataclasses.replace(leaf, fill=fill)


def stacked(leaves: Sequence[Leaf], path: str) -> Leaf:
  """Leaves of one shape along a new first axis.

  Raises:
    UserError: their shapes differ.
  """
  shapes = {leaf.shape for leaf in leaves}
  if len(shapes) > 1:
    raise UserError(f'{path} has shapes {sorted(shapes)} in different layers; expected one.')

  def fill(out: np.ndarray) -> None:
    for leaf, part in zip(leaves, out, strict=True):
      leaf.fill(part)

  first = leaves[0]
  dtype = np.result_type(*{leaf.dtype for leaf in leaves})
  return Leaf((len(leaves), *first.shape), dtype, f'{first.where} and other layers', fill)


def check_kind(name: str, where: str) -> None:
  """Refuses dtypes that are no weights of a T5."""
  if name not in KINDS:
    raise UserError(
      f'{where} is stored as {name}; expected one of {", ".join(KINDS)}. Quantised weights cannot '
      'be loaded: take the checkpoint that they were made from.'
    )
