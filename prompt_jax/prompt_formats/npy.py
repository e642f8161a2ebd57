"""Prompts as google-research/prompt-tuning writes them: one array in NumPy's format.

Its trainer leaves `MODEL_DIR/numpy_checkpoints/checkpoint_{step}/encoder.prompt.prompt.prompt`,
the name of the parameter with dots and no suffix. The file says neither model nor task.
"""

import io
import os
import pathlib
import re

import numpy as np

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError
from prompt_jax.prompt_formats.foreign import PARAMETER, Found, Rows, checked

MAGIC = b'\x93NUMPY'
FOLDER = 'numpy_checkpoints'
NAME = '.'.join(PARAMETER)
_CHECKPOINT = re.compile(r'checkpoint_(\d+)')


def is_npy(path: str | os.PathLike) -> bool:
  """Whether a file begins as NumPy's do, whatever its name."""
  try:
    with open(path, 'rb') as file:
      return file.read(len(MAGIC)) == MAGIC
  except OSError:
    return False


def read_npy(path: str | os.PathLike) -> Found:
  """A prompt [P, H] of one file.

  Raises:
    UserError: the file is missing or damaged, or no finite matrix.
  """
  path = pathlib.Path(path)
  try:
    with path.open('rb') as opened:  # of an archive, NumPy would leave it open
      values = np.load(opened, allow_pickle=False)
  except Exception as e:  # NumPy raises many kinds for a header that is something else
    raise UserError(
      f'{str(path)!r} is damaged or no .npy array of numbers ({_line(e)}). Copy it again.'
    ) from None
  if not isinstance(values, np.ndarray):  # an .npz archive
    raise UserError(f'{str(path)!r} holds several arrays ({", ".join(values)}). Give one, as .npy.')
  step = _CHECKPOINT.fullmatch(path.parent.name)
  return Found(
    prompt=Rows(checked(values, path, (None, None))),
    form='npy',
    path=str(path),
    step=int(step[1]) if step else None,
  )


def find_numpy_checkpoint(folder: str | os.PathLike) -> pathlib.Path | None:
  """The prompt of the last step below a model directory, or None if it is no such directory.

  Args:
    folder: MODEL_DIR, its `numpy_checkpoints`, or one `checkpoint_{step}` of them.

  Raises:
    UserError: there are checkpoints, but none of rows before the encoder's input.
  """
  folder = pathlib.Path(folder)
  if (folder / FOLDER).is_dir():
    folder = folder / FOLDER
  steps = {
    int(m[1]): p for p in folder.glob('checkpoint_*') if (m := _CHECKPOINT.fullmatch(p.name))
  }
  if folder.name == FOLDER and not steps:
    raise UserError(f'{str(folder)!r} holds no checkpoint_STEP folders. Give the folder of a run.')
  inside = folder.name == FOLDER or folder.parent.name == FOLDER
  last = steps[max(steps)] if folder.name == FOLDER else folder
  if (last / NAME).is_file():
    more = sorted(p.name for p in last.iterdir() if p.name != NAME and not p.name.startswith('.'))
    if more:
      raise UserError(
        f'{str(last)!r} holds {", ".join(more)} beside {NAME}: all of them belong to one prompt, '
        'of which only the rows can be imported. For those alone give the file itself.'
      )
    return last / NAME
  if not inside:
    return None
  names = sorted(p.name for p in last.iterdir()) if last.is_dir() else []
  raise UserError(
    f'{str(last)!r} holds {", ".join(names) or "nothing"}; expected {NAME}, rows before the '
    "encoder's input. Prompts of every layer and of several tasks cannot be imported."
  )


def write_npy(path: str | os.PathLike, rows: Rows) -> pathlib.Path:
  """Writes the rows under exactly that name, and returns it.

  Raises:
    UserError: the folder cannot be written.
  """
  data = io.BytesIO()
  np.save(data, np.ascontiguousarray(rows.values, np.float32))
  write_atomically(path, data.getvalue())
  return pathlib.Path(path)


def numpy_checkpoint_path(folder: str | os.PathLike, step: int) -> pathlib.Path:
  """Where google-research/prompt-tuning keeps the prompt of a step, below its model directory."""
  return pathlib.Path(folder) / FOLDER / f'checkpoint_{step}' / NAME


def _line(error: Exception) -> str:
  """An error of a library in one line."""
  return ' '.join(str(error).split()) or type(error).__name__
