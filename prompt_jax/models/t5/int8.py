"""Frozen matrices in int8, with a float32 scale per channel.

A matrix is dequantised in the operand of its product, so no other copy of it is ever in memory.
Only what is frozen can be stored so: a rounded value has no gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

Array = jax.Array
_LARGEST = 127  # of int8, the same on both sides of 0


@struct.dataclass
class Int8:
  """values * scale.

  Attributes:
    values: int8[..., I, O] of a kernel, int8[V, H] of an embedding table.
    scale: float32[..., 1, O] one per output of a kernel, float32[V, 1] one per row of a table.
  """

  values: Array
  scale: Array

  @property
  def shape(self) -> tuple[int, ...]:
    return self.values.shape


Matrix = Array | Int8


def scaled_axis(path: str) -> int | None:
  """The axis along which a leaf has one scale, by its path; None where it stays as it is."""
  return {'kernel': -2, 'embedding': -1}.get(path.rpartition('/')[2])


def quantise(path: str, array: np.ndarray) -> np.ndarray | Int8:
  """A leaf of a backbone by its path: kernels and the embedding table in int8, others unchanged.

  Each value is rounded to the nearest of 255, which span the largest of its channel.
  """
  axis = scaled_axis(path)
  if axis is None:
    return array
  wide = np.asarray(array, np.float32)
  largest = np.max(np.abs(wide), axis=axis, keepdims=True)
  scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
  return Int8(np.rint(wide / scale).astype(np.int8), scale)  # type: ignore[arg-type]


def wide(matrix: Matrix) -> Array:
  """The matrix itself, in float32 where it was in int8."""
  return matrix.values * matrix.scale if isinstance(matrix, Int8) else matrix


def kernel_parts(kernel: Matrix, dtype: jax.typing.DTypeLike) -> tuple[Array, Array | None]:
  """([I, O] in the dtype, float32[O] to multiply the product by)."""
  if isinstance(kernel, Int8):
    return kernel.values.astype(dtype), kernel.scale[0]
  return kernel.astype(dtype), None


def table_parts(table: Matrix, dtype: jax.typing.DTypeLike) -> tuple[Array, Array | None]:
  """([V, H] in the dtype, float32[V] to multiply products with its rows by)."""
  if isinstance(table, Int8):
    return table.values.astype(dtype), table.scale[:, 0]
  return table.astype(dtype), None


def rows(table: Matrix, ids: Array, dtype: jax.typing.DTypeLike) -> Array:
  """Rows of an embedding table: int32[...] -> [..., H]."""
  if not isinstance(table, Int8):
    return jnp.take(table, ids, axis=0).astype(dtype)
  take = lambda x: jnp.take(x, ids, axis=0)
  return (take(table.values).astype(jnp.float32) * take(table.scale)).astype(dtype)
