"""An array in a zarr folder, read with tensorstore straight into the memory it is meant for."""

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_jax.checkpoints.leaf import Leaf, Leaves, check_finite
from prompt_jax.errors import UserError

Spec = dict[str, Any]


def open_all(specs: Mapping[str, Spec], where: str) -> Leaves:
  """Opens arrays by tensorstore's specification; nothing but their metadata is read.

  Args:
    specs: by name; `driver` and `kvstore`.
    where: the checkpoint, for messages.

  Raises:
    UserError: an array is missing or its metadata are damaged.
  """
  import tensorstore as ts

  # All at once: in a bucket each of them is a round trip.
  pending = {name: ts.open(spec, read=True, open=True) for name, spec in specs.items()}
  found: Leaves = {}
  for name, future in pending.items():
    try:
      found[name] = _leaf(future.result(), f'{where}: {name}')
    except ValueError as e:
      raise _damaged(f'{where}: {name}', e) from None
  return found


def _leaf(store: Any, where: str) -> Leaf:
  dtype = np.dtype(store.dtype.numpy_dtype)

  def fill(out: np.ndarray) -> None:
    import tensorstore as ts

    _check_chunks(store, where)
    try:
      ts.array(out).write(store.astype(ts.dtype(out.dtype))).result()
    except ValueError as e:
      raise _damaged(where, e) from None
    check_finite(out, where)

  return Leaf(tuple(store.shape), dtype, where, fill)


def _check_chunks(store: Any, where: str) -> None:
  """Refuses an array that lacks chunks: zarr reads zeros there, and nobody would know."""
  spec = store.spec().to_json()
  chunk = store.chunk_layout.write_chunk.shape or ()  # a scalar has none
  grid = [range(-(-size // part)) for size, part in zip(store.shape, chunk, strict=True)]
  if spec['driver'] == 'zarr3':
    encoding = spec['metadata'].get('chunk_key_encoding', {'name': 'default'})
    separator = encoding.get('configuration', {}).get('separator', '/')
    prefix = ['c'] if encoding['name'] == 'default' else []
  else:
    separator, prefix = spec['metadata'].get('dimension_separator', '.'), []
  names = {separator.join([*prefix, *map(str, index)]) for index in itertools.product(*grid)}
  names = {name or '0' for name in names}
  try:
    there = {key.decode() for key in store.kvstore.list().result()}
  except ValueError as e:
    raise _damaged(where, e) from None
  missing = sorted(names - there)
  if missing:
    raise UserError(
      f'{where} lacks {len(missing)} of {len(names)} chunks, such as {missing[0]}: the checkpoint '
      'is not whole. Copy it again.'
    )


def _damaged(where: str, error: Exception) -> UserError:
  reason = ' '.join(str(error).split())
  return UserError(f'{where} is missing or damaged: {reason[:300]}. Copy the checkpoint again.')
