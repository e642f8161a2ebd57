"""A checkpoint of T5X that holds a model and its prompt, as google-research/prompt-tuning has them.

T5X restores one tree; its models with a prompt have the rows at `encoder/prompt/prompt/prompt`,
between the encoder's other parameters. The form is T5X's own before Orbax, which every T5X reads: a
msgpack file of Flax, and beside it one zarr folder for each array, of which the file holds
tensorstore's specification.
"""

import math
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import serialization, traverse_util

from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.errors import UserError

FILE = 'checkpoint'
PARAMETER = ('encoder', 'prompt', 'prompt', 'prompt')
VERSION = 3  # of T5X's checkpoints, since June 2021
CHUNK = 2**26  # bytes

Arrays = Mapping[tuple[str, ...], np.ndarray]


def merged(params: Mapping[str, Any], rows: np.ndarray) -> Arrays:
  """The model's arrays and the prompt float32[P, H], by T5X's paths; views where they can be."""
  return {**traverse_util.flatten_dict(unstack_layers(params)), PARAMETER: rows}


def write_merged(
  folder: str | os.PathLike,
  arrays: Arrays,
  step: int,
  advance: Callable[[int], None] = lambda count: None,
) -> None:
  """Writes a checkpoint one array at a time, in float32.

  Args:
    folder: becomes the checkpoint, named `checkpoint_{step}` by T5X's custom; it appears whole or
      not at all.
    arrays: what `merged` gives.
    step: of training, which T5X reads from the checkpoint.
    advance: called with 1 after each array.

  Raises:
    UserError: the folder cannot be written.
  """
  folder = pathlib.Path(folder)
  temporary = folder.with_name(f'.{folder.name}.tmp')
  try:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    specs = {}
    for path, array in arrays.items():
      values = np.ascontiguousarray(array, np.float32)
      specs[path] = _write(temporary, 'target.' + '.'.join(path), values)
      advance(1)
    # Without optimiser states: T5X's reader trips over an empty dict of them.
    state = {'step': np.asarray(step, np.int32)}
    target = traverse_util.unflatten_dict(specs)
    tree = {'version': VERSION, 'optimizer': {'state': state, 'target': target}}
    write_atomically(temporary / FILE, serialization.msgpack_serialize(tree))
    os.replace(temporary, folder)
  except (OSError, ValueError) as e:  # tensorstore tells of a full disk by ValueError
    shutil.rmtree(temporary, ignore_errors=True)
    reason = getattr(e, 'strerror', None) or ' '.join(str(e).split())
    raise UserError(
      f'Cannot write the checkpoint {str(folder)!r}: {reason}. Free some space or give another '
      'folder.'
    ) from None


def _write(folder: pathlib.Path, name: str, array: np.ndarray) -> dict[str, Any]:
  """One zarr folder; returns what the msgpack file says of it, as T5X does."""
  import tensorstore as ts

  metadata: dict[str, Any] = {
    'shape': list(array.shape),
    'chunks': _chunks(array.shape, array.itemsize),
    'compressor': {'id': 'gzip', 'level': 1},
  }
  place = {'driver': 'file', 'path': f'{(folder / name).absolute()}/'}
  spec = {'driver': 'zarr', 'kvstore': place, 'metadata': {**metadata, 'dtype': '<f4'}}
  ts.open(spec, create=True, open=False).result().write(array).result()
  # The path is relative to the checkpoint, so that it can be moved.
  kvstore = {'driver': 'file', 'path': f'{name}/'}
  return {'driver': 'zarr', 'dtype': array.dtype.name, 'kvstore': kvstore, 'metadata': metadata}


def _chunks(shape: tuple[int, ...], itemsize: int) -> list[int]:
  """Sizes of pieces of at most CHUNK bytes that divide the array, halving its longest axes."""
  chunks = list(shape)
  while math.prod(chunks) * itemsize > CHUNK:
    axis = int(np.argmax(chunks))
    parts = next((k for k in range(2, chunks[axis] + 1) if chunks[axis] % k == 0), 1)
    chunks[axis] //= parts
  return chunks
