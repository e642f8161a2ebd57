"""The prompt inside a whole checkpoint of T5X, as google-research/prompt-tuning has it.

T5X restores one tree; its models with a prompt have the rows at `encoder/prompt/prompt/prompt`,
between the encoder's other parameters, and the trainer inside T5X puts them there too. Reading the
prompt reads nothing of the model but what one msgpack file holds with it. A checkpoint is written
in the form that T5X had before Orbax, which every T5X reads: a msgpack file of Flax, and beside it
one zarr folder for each array, of which the file holds tensorstore's specification.
"""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from prompt_jax.checkpoints.fingerprint import combine, leaf_digests
from prompt_jax.checkpoints.formats import t5x_writer
from prompt_jax.checkpoints.formats.t5x import from_t5x, is_prompt
from prompt_jax.checkpoints.formats.t5x_checkpoint import open_checkpoint
from prompt_jax.checkpoints.leaf import Leaves
from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from prompt_jax.prompt_formats.foreign import PARAMETER, Found, Rows, checked

Arrays = Mapping[tuple[str, ...], np.ndarray]
NAME = '/'.join(PARAMETER)
STEP = 'state/step'
# Where the trainer inside T5X has the parameters of every other method.
METHOD = ('prompt/', 'prompt_constants/')
SHOWN = 5


def read_t5x(place: str) -> Found:
  """The rows of prompt tuning [P, H].

  Args:
    place: see `open_checkpoint`.

  Raises:
    UserError: there is no such checkpoint, it is damaged, or holds no such prompt; what it holds
      instead is listed.
  """
  checkpoint = open_checkpoint(place, (STEP, *(f'target/{name}' for name in (NAME, *METHOD))))
  found, step = checkpoint.target, _step(checkpoint.leaves)
  if found.keys() != {NAME}:
    raise UserError(_other(checkpoint.where, step, found or open_checkpoint(place).target))
  where = f'{checkpoint.where}: {NAME}'
  rows = Rows(checked(found[NAME].read(), where, (None, None)))
  return Found(prompt=rows, form=f'T5X, {checkpoint.form}', path=where, step=step)


def base_fingerprint(place: str, config: T5Config) -> str | None:
  """The fingerprint of the model in a checkpoint; None where that holds a prompt only.

  Args:
    place: see `open_checkpoint`.
    config: the architecture that it is expected to have.

  Raises:
    UserError: it has another one (both trees are listed), or is damaged.
  """
  checkpoint = open_checkpoint(place)
  model = {name: leaf for name, leaf in checkpoint.target.items() if not is_prompt(name)}
  if not model:
    return None
  _, leaves = from_t5x(model, checkpoint.where, config)
  digests: dict[str, bytes] = {}
  for path in sorted(leaves):
    digests |= leaf_digests(path, leaves[path].read('float32'))
  return combine(digests)


def _step(leaves: Leaves) -> int | None:
  if STEP not in leaves:
    return None
  # Not `read`, which takes floats only.
  step = np.empty(leaves[STEP].shape, leaves[STEP].dtype)
  leaves[STEP].fill(step)
  return int(step)


def _other(where: str, step: int | None, found: Leaves) -> str:
  """What is there in place of rows before the encoder's input."""
  prompts = [path for path in sorted(found) if is_prompt(path)]
  shown = prompts or sorted(found)
  listed = ', '.join(f'{path} {list(found[path].shape)}' for path in shown[:SHOWN])
  listed += f' and {len(shown) - SHOWN} more' if len(shown) > SHOWN else ''
  if not prompts:
    return (
      f'{where} holds a model and no prompt: {listed}. A prompt would be at {NAME}; give the '
      'checkpoint of a run that trained one.'
    )
  if any(path.startswith(METHOD) for path in prompts):
    return (
      f'{where} holds a prompt whose method is not in the checkpoint: {listed}. Its run wrote a '
      f'prompt file, which says it: prompts/checkpoint_{step}.safetensors beside the checkpoint. '
      'Use that as it is.'
    )
  return (
    f"{where} holds {listed}; expected {NAME}, rows before the encoder's input. Prompts of every "
    'layer and of several tasks cannot be imported.'
  )


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
