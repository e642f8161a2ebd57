"""A folder whose prompt files are served: what is new, changed or gone there is so here.

A prompt that took the place of one of the folder stays when the file is gone.
"""

import logging
import os
import pathlib
from collections.abc import Mapping

from prompt_jax import named_prompts
from prompt_jax.errors import UserError
from prompt_jax.serving.engine import Changeable

LOG = logging.getLogger('prompt_jax')
SECONDS = 1.0  # from one look to the next
# Changes with the content of a file: size, times, and the file itself.
Stamp = tuple[int, int, int, int]


class Watched:
  """What was seen in a folder, and which prompts came from it."""

  def __init__(self, folder: str, engine: Changeable, served: Mapping[str, str]):
    """Begins without looking.

    Args:
      folder: that is watched.
      engine: whose prompts follow it.
      served: {name: file} of the prompts that the engine has already.
    """
    self._folder, self._engine = pathlib.Path(folder), engine
    self._names = {os.path.abspath(file): name for name, file in served.items()}
    self._stamps: dict[str, Stamp] = {}
    # The prompts themselves: others may take their names.
    self._given = {file: engine[name] for file, name in self._names.items()}
    # What the engine has at the beginning, it has read just now.
    self._seen = {path: s for path in self._names if (s := _stamp(pathlib.Path(path)))}

  def look(self, at_once: bool = False) -> bool:
    """Adds, replaces and removes prompts, and returns whether there is a new one.

    A file that cannot be read is told in one line.

    Args:
      at_once: takes what is there; else a file is left alone until a second look finds it as the
        first did, as it may be half written.
    """
    if not self._folder.is_dir():
      return False  # not mounted: what was read stays
    found, new = {}, False
    for path in named_prompts.below(self._folder):
      if (stamp := _stamp(path)) is not None:
        found[os.path.abspath(path)] = stamp
    for file in [file for file in self._seen if file not in found]:
      if pathlib.Path(file).is_relative_to(os.path.abspath(self._folder)):
        del self._seen[file]
        self._forget(file)
    for file, stamp in found.items():
      if self._seen.get(file) == stamp:
        continue
      if at_once or self._stamps.get(file) == stamp:
        self._seen[file] = stamp
        new |= self._take(file)
      self._stamps[file] = stamp
    return new

  def _take(self, file: str) -> bool:
    folder = pathlib.Path(os.path.abspath(self._folder))
    name = self._names.get(file) or named_prompts.name_in(folder, pathlib.Path(file))
    try:
      if name in self._engine.names and file not in self._names:
        raise UserError(f'there is a prompt {name!r} from elsewhere already')
      self._engine.add(name, file)
    except UserError as e:
      LOG.warning('%s is not taken: %s', file, ' '.join(str(e).split()))
      return False
    self._names[file], self._given[file] = name, self._engine[name]
    LOG.info('the prompt %s is that of %s', name, file)
    return True

  def _forget(self, file: str) -> None:
    name, given = self._names.pop(file, None), self._given.pop(file, None)
    if name is None or name not in self._engine.names or self._engine[name] is not given:
      return
    self._engine.remove(name)
    LOG.info('the prompt %s is gone with its file', name)


def _stamp(path: pathlib.Path) -> Stamp | None:
  """None for a file that is gone."""
  try:
    found = path.stat()
  except OSError:
    return None
  return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
