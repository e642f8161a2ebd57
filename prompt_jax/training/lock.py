"""One run at a time in a folder."""

import fcntl
import os
import pathlib

from prompt_jax.errors import UserError
from prompt_jax.runtime import processes


class Lock:
  """Held while it is entered, by the first of several processes for all of them.

  The system frees it when the process ends, however it ends.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._file: int | None = None

  def __enter__(self) -> 'Lock':
    """
    Raises:
      UserError: another run holds it, or the folder cannot be written.
    """
    processes.broadcast(self._hold)
    return self

  def _hold(self) -> None:
    path = self._folder / '.lock'
    try:
      self._folder.mkdir(parents=True, exist_ok=True)
      self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as e:
      raise UserError(
        f'Cannot write into the folder {str(self._folder)!r}: {e.strerror}. Give another folder.'
      ) from None
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      os.close(self._file)
      raise UserError(
        f'Another process is training in the folder {str(self._folder)!r}. Wait for it to end, or '
        'give another --output.'
      ) from None

  def __exit__(self, *_) -> None:
    if self._file is not None:
      os.close(self._file)
