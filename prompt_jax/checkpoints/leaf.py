"""Arrays of a checkpoint, known by name, shape and dtype, each read when it is needed.

Safetensors files are read and written one array at a time: the library writes a file from arrays
that are all in memory, and a model larger than that needs each on disk before the next is read. The
format is eight bytes with the length of a JSON header, the header, and the arrays' bytes. The names
and shapes of a checkpoint are compared with those of its architecture.
"""

import dataclasses
import functools
import json
import os
import pathlib
import types
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors
from flax import traverse_util

from prompt_jax.errors import UserError
from prompt_jax.models.module import Config, module

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
          'different values; a model of this package has one table here.'
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


SAFETENSORS_KINDS = {'F16': 'float16', 'BF16': 'bfloat16', 'F32': 'float32', 'F64': 'float64'}


def safetensors_leaves(path: pathlib.Path, sums: Mapping[str, int] | None = None) -> Leaves:
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
  check_kind(SAFETENSORS_KINDS.get(kind, kind), where)

  dtype = np.dtype(ml_dtypes.bfloat16 if kind == 'BF16' else SAFETENSORS_KINDS[kind])

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


def write_safetensors(
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
  codes = {dtype: code for code, dtype in SAFETENSORS_KINDS.items()}
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


Shapes = Mapping[str, tuple[int, ...]]
# Leaves that agree are listed up to this number.
MANY = 50


@functools.cache
def expected_shapes(cfg: Config) -> Shapes:
  """Shape of each parameter by path "encoder/layers/mlp/wo/kernel", as the model makes them."""
  ids = jnp.zeros((1, 1), jnp.int32)
  tree = jax.eval_shape(module(cfg).init, jax.random.key(0), ids, ids)
  flat = traverse_util.flatten_dict(tree['params'], sep='/')
  return types.MappingProxyType({path: leaf.shape for path, leaf in flat.items()})


def check_params(cfg: Config, params: Mapping[str, Any]) -> None:
  """Compares a backbone's tree with its configuration.

  Raises:
    UserError: paths are missing or unknown, or shapes differ; each is listed.
  """
  got = {p: np.shape(x) for p, x in traverse_util.flatten_dict(params, sep='/').items()}
  compare(expected_shapes(cfg), got, 'The parameters')


def compare(expected: Shapes, found: Shapes, what: str) -> None:
  """Compares two trees by the shapes of their leaves.

  Args:
    expected: of the architecture.
    found: of the checkpoint.
    what: begins the message.

  Raises:
    UserError: paths are missing or unknown, or shapes differ. The message has both trees, a leaf a
      line, with these marked; leaves that agree are counted instead where there are many.
  """
  if expected == found:
    return
  lines, agree = [], []
  for path in sorted(expected.keys() | found.keys()):
    want, have = expected.get(path), found.get(path)
    if want == have:
      agree.append(f'          {path} {_show(want)}')
      lines.append(agree[-1])
    elif want is None:
      lines.append(f'  unknown {path} {_show(have)}')
    elif have is None:
      lines.append(f'  missing {path} {_show(want)}')
    else:
      lines.append(f'  shape   {path} is {_show(have)}; expected {_show(want)}')
  if len(agree) > MANY:
    lines = [line for line in lines if line not in set(agree)]
    lines.append(f'  ... and {len(agree)} that agree')
  if len(lines) > 4 * MANY:
    lines = [*lines[: 4 * MANY], f'  ... and {len(lines) - 4 * MANY} more']
  raise UserError(
    f'{what} are not those of the architecture; nothing was loaded:\n' + '\n'.join(lines)
  )


def _show(shape: tuple[int, ...] | None) -> str:
  return str(list(shape or ()))
