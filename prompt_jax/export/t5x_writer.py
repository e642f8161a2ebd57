"""A T5X checkpoint in the form that every T5X reads: a msgpack file beside zarr folders.

It holds the step and the parameters, and no optimizer's state.
"""

import pathlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from flax import serialization, traverse_util

from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.formats.t5x import to_t5x
from prompt_jax.checkpoints.formats.t5x_checkpoint import FILE
from prompt_jax.checkpoints.leaf import BLOCK
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.data.vocabulary import FILE_NAME, SETTINGS, SentencePieceVocabulary, Vocabulary
from prompt_jax.errors import UserError

VERSION = 3  # of T5X's checkpoints, since June 2021
COMPRESSOR = {'id': 'gzip', 'level': 1}


def save(
  folder: pathlib.Path, arrays: Iterable[tuple[str, np.ndarray]], words: Vocabulary, step: int = 0
) -> None:
  """Writes a model as `folder/checkpoint_{step}`; its msgpack file comes last, so it says that all
  is there.

  Args:
    folder: made if absent.
    arrays: leaves of ours by path; taken one at a time.
    words: the vocabulary; a SentencePiece model and the number of its sentinels are put into
      `folder`, where T5X ignores them and prompt_jax finds them.
    step: number of steps done.

  Raises:
    UserError: the folder cannot be written.
  """
  if isinstance(words, SentencePieceVocabulary):
    write_atomically(folder / FILE_NAME, pathlib.Path(words.path).read_bytes())
    on_disk.write_json(folder / SETTINGS, {'extra_ids': words.extra_ids})
  write(folder / f'checkpoint_{step}', (pair for leaf in arrays for pair in to_t5x(*leaf)), step)


def write(checkpoint: pathlib.Path, arrays: Iterable[tuple[str, np.ndarray]], step: int) -> None:
  """Writes a checkpoint's folder; arrays are T5X's by path, taken one at a time.

  Raises:
    UserError: the folder cannot be written.
  """
  specs = {name: write_array(checkpoint, f'target/{name}', array) for name, array in arrays}
  target = traverse_util.unflatten_dict(specs, sep='/')
  # Without optimizer states: T5X's reader trips over an empty dict of them.
  optimizer = {'state': {'step': np.asarray(step, np.int32)}, 'target': target}
  tree = {'version': VERSION, 'optimizer': optimizer}
  write_atomically(checkpoint / FILE, serialization.msgpack_serialize(tree))


def write_array(checkpoint: pathlib.Path, name: str, array: np.ndarray) -> dict[str, Any]:
  """Writes one array; returns the specification that stands for it in the msgpack file.

  The path in it is relative to the checkpoint, so that the checkpoint can be moved.

  Raises:
    UserError: the folder cannot be written.
  """
  import tensorstore as ts

  array = np.ascontiguousarray(array)
  folder = f'{name.replace("/", ".")}/'
  dtype = array.dtype.name if array.dtype.name == 'bfloat16' else array.dtype.str
  metadata = {'shape': list(array.shape), 'chunks': _chunks(array), 'compressor': COMPRESSOR}
  spec = {
    'driver': 'zarr',
    'kvstore': {'driver': 'file', 'path': f'{checkpoint.absolute()}/{folder}'},
    'metadata': {**metadata, 'dtype': dtype},
    # A chunk of zeros is written too: that no chunk is missing is how a reader knows it is whole.
    'store_data_equal_to_fill_value': True,
  }
  try:
    ts.open(spec, create=True, delete_existing=True).result().write(array).result()
  except ValueError as e:
    reason = ' '.join(str(e).split())[:300]
    raise UserError(f'Cannot write {name} into {checkpoint}: {reason}. Free some space.') from None
  where = {'driver': 'file', 'path': folder}
  return {'driver': 'zarr', 'dtype': array.dtype.name, 'kvstore': where, 'metadata': metadata}


def _chunks(array: np.ndarray) -> list[int]:
  """Whole rows, as many as divide the array evenly and are at most BLOCK bytes."""
  rows = array.shape[0]
  most = max(BLOCK // max(array.nbytes // max(rows, 1), 1), 1)
  best = max(n for n in range(1, min(rows, most) + 1) if rows % n == 0)
  return [best, *array.shape[1:]]
