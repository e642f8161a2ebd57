"""Safetensors files, read and written one array at a time.

The library writes a file from arrays that are all in memory; a model larger than that needs each
array to go to disk before the next is read. The format is eight bytes with the length of a JSON
header, the header, and the arrays' bytes.
"""

import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Mapping

import numpy as np
import safetensors

from prompt_jax.checkpoints.leaf import Leaf, Leaves, blocks, check_kind, copy_finite
from prompt_jax.errors import UserError

KINDS = {'F16': 'float16', 'BF16': 'bfloat16', 'F32': 'float32', 'F64': 'float64'}


def leaves(path: pathlib.Path, sums: Mapping[str, int] | None = None) -> Leaves:
  """The arrays of a file, unread.

  Args:
    path: of the file.
    sums: CRC-32 of arrays' bytes by name, against which those are checked as they are read.

  Raises:
    UserError: the file is missing, damaged, or holds something other than floats.
  """
  if not path.is_file():
    raise UserError(f'{path.parent} has no {path.name}: the weights are missing')
  found = {}
  try:
    # The library compares the header with the length of the file: a truncated one fails here.
    with safetensors.safe_open(path, framework='numpy') as file:
      for name in file.keys():  # noqa: SIM118
        about = file.get_slice(name)
        found[name] = (tuple(about.get_shape()), about.get_dtype())
  except (safetensors.SafetensorError, OSError, ValueError) as error:
    raise _damaged(path, error) from None
  return {name: _leaf(path, name, *about, (sums or {}).get(name)) for name, about in found.items()}


def _leaf(
  path: pathlib.Path, name: str, shape: tuple[int, ...], kind: str, expected: int | None
) -> Leaf:
  where = f'{path}: {name}'
  check_kind(KINDS.get(kind, kind), where)
  import ml_dtypes

  dtype = np.dtype(ml_dtypes.bfloat16 if kind == 'BF16' else KINDS[kind])

  def fill(out: np.ndarray) -> None:
    try:
      # Opened anew, so that the pages read so far do not stay mapped.
      with safetensors.safe_open(path, framework='numpy') as file:
        found, view = 0, file.get_slice(name)  # of a scalar there is no slice
        for part in blocks(shape, dtype.itemsize):
          values = view[part] if shape else file.get_tensor(name)
          found = _crc(values, found)
          copy_finite(values, out[part], where)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
      raise _damaged(path, error) from None
    if expected not in (None, found):
      raise _damaged(path, f'the bytes of {name} have changed since they were written')

  return Leaf(shape, dtype, where, fill)


def _crc(values: np.ndarray, before: int = 0) -> int:
  return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, before)


def _damaged(path: pathlib.Path, error: Exception | str) -> UserError:
  return UserError(f'{path} is damaged or no safetensors file: {error}. Copy it again.')


def write(
  path: pathlib.Path,
  shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]],
  arrays: Iterable[tuple[str, np.ndarray]],
  metadata: Mapping[str, str] | None = None,
) -> dict[str, int]:
  """Writes a file so that a reader sees the old bytes or the new ones, even after a crash.

  Args:
    path: its folder is made if absent.
    shapes: shape and dtype of every array, in the order of `arrays`.
    arrays: taken one at a time.
    metadata: texts for the header.

  Returns:
    CRC-32 of the bytes of every array.

  Raises:
    UserError: the folder cannot be written; an older file is kept.
    ValueError: `arrays` are not those that were announced.
  """
  temporary = path.with_name(f'.{path.name}.tmp')
  sums: dict[str, int] = {}
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(temporary, 'wb') as file:
      file.write(_header(shapes, metadata))
      expected = iter(shapes.items())
      for name, array in arrays:
        if (name, (array.shape, array.dtype)) != next(expected, None):
          raise ValueError(f'{name} {array.dtype}{list(array.shape)} was not announced here')
        for part in blocks(array.shape, array.dtype.itemsize):
          file.write(np.ascontiguousarray(array[part]).tobytes())
          sums[name] = _crc(array[part], sums.get(name, 0))
      if next(expected, None) is not None:
        raise ValueError('fewer arrays than announced')
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
    return sums
  except OSError as e:
    raise UserError(
      f'Cannot write {path.name!r} into the folder {str(path.parent)!r}: {e.strerror or e}. '
      'Free some space or give another folder.'
    ) from None
  finally:
    if temporary.exists():
      temporary.unlink()


def _header(
  shapes: Mapping[str, tuple[tuple[int, ...], np.dtype]], metadata: Mapping[str, str] | None
) -> bytes:
  codes = {dtype: code for code, dtype in KINDS.items()}
  entries: dict[str, object] = {'__metadata__': dict(metadata)} if metadata else {}
  end = 0
  for name, (shape, dtype) in shapes.items():
    begin, end = end, end + int(np.prod(shape)) * dtype.itemsize
    entries[name] = {
      'dtype': codes[dtype.name], 'shape': list(shape), 'data_offsets': [begin, end]
    }  # fmt: skip
  text = json.dumps(entries).encode()
  text += b' ' * (-len(text) % 8)
  return len(text).to_bytes(8, 'little') + text
