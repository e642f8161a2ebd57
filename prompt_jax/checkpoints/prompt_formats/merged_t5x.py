"""A checkpoint of T5X that holds a model and its prompt, as google-research/prompt-tuning has them.

T5X restores one tree; its models with a prompt have the rows at `encoder/prompt/prompt/prompt`,
between the encoder's other parameters. The form is T5X's own before Orbax, which every T5X reads: a
msgpack file of Flax, and beside it one zarr folder for each array, of which the file holds
tensorstore's specification.
"""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from prompt_jax.checkpoints.formats import t5x_writer
from prompt_jax.checkpoints.prompt_formats.foreign import PARAMETER
from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.errors import UserError

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
    t5x_writer.write(temporary, _float32(arrays, advance), step)
    os.replace(temporary, folder)
  except OSError as e:
    raise UserError(
      f'Cannot write the checkpoint {str(folder)!r}: {e.strerror or e}. Free some space or give '
      'another folder.'
    ) from None
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _float32(arrays: Arrays, advance: Callable[[int], None]) -> Iterator[tuple[str, np.ndarray]]:
  for path, array in arrays.items():
    yield '/'.join(path), np.asarray(array, np.float32)
    advance(1)
