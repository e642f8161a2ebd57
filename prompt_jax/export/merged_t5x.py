"""A model and a prompt as one checkpoint of T5X, as google-research/prompt-tuning has it.

It is written in the form that T5X had before Orbax, see `t5x_writer`.
"""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.errors import UserError
from prompt_jax.export import t5x_writer
from prompt_jax.prompt_formats.foreign import PARAMETER

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
