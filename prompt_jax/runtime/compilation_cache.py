"""Compiled programs kept on disk, so that the next process with the same shapes compiles nothing.

JAX keeps them under a key of the program, its own version and the kind of device. What it leaves
out on a CPU are the instructions that the machine code needs, so that machines that share a home
folder have folders of their own here.
"""

import hashlib
import os
import pathlib
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping

import jax

from prompt_jax.errors import UserError

# What is faster than this to compile is not worth a file.
LEAST_SECONDS = 0.5
MOST_BYTES = 2**30
# Lines of /proc/cpuinfo that tell what a core can do (x86 and ARM).
_CAN = ('vendor_id', 'cpu family', 'model', 'flags', 'CPU implementer', 'CPU part', 'Features')


def use(where: str, device: jax.Device) -> None:
  """Lets JAX read and keep compiled programs, from the next one that it compiles.

  A folder that cannot be used is told in a warning, and the run compiles everything.

  Args:
    where: "auto", "off" or a folder; see `folder`.
    device: what computes.

  Raises:
    UserError: an address.
  """
  if '://' in where:
    raise UserError(
      f'Compiled programs are kept in a folder of this machine; {where} is an address. For one, '
      'set JAX_COMPILATION_CACHE_DIR instead.'
    )
  if where == 'off':
    jax.config.update('jax_enable_compilation_cache', False)
    return
  if where == 'auto' and os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return  # JAX has read its own variables
  try:
    chosen = folder(where, device.platform, os.environ)
    # Whoever may write here can make this user's next run do anything.
    chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_room(chosen)
    if not os.access(chosen, os.W_OK | os.X_OK):
      raise PermissionError(f'{chosen} cannot be written to')
  except (OSError, RuntimeError) as e:  # RuntimeError: the user has no home
    warnings.warn(
      f'Compiled programs cannot be kept for the next run: {e}. Give another folder with '
      '--compilation_cache DIR, or "off".',
      stacklevel=2,
    )
    return
  jax.config.update('jax_compilation_cache_dir', str(chosen))
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', LEAST_SECONDS)


def folder(where: str, kind: str, environment: Mapping[str, str]) -> pathlib.Path:
  """Where programs for this machine are kept.

  Args:
    where: a folder, or "auto" for prompt_jax/ in the user's folder for such things.
    kind: of the device that computes: "cpu", "gpu", ...
    environment: variables of the process.
  """
  root = _of_user(environment) / 'prompt_jax' if where == 'auto' else pathlib.Path(where)
  return root / (f'cpu-{_instructions()}' if kind == 'cpu' else kind)


def _of_user(environment: Mapping[str, str]) -> pathlib.Path:
  """What the platform says: XDG base directories, or those of macOS and Windows."""
  given = pathlib.Path(environment.get('XDG_CACHE_HOME', ''))
  if given.is_absolute():  # a relative one is to be ignored
    return given
  home = pathlib.Path.home()
  if sys.platform == 'darwin':
    return home / 'Library' / 'Caches'
  if sys.platform == 'win32':
    return pathlib.Path(environment.get('LOCALAPPDATA') or home / 'AppData' / 'Local')
  return home / '.cache'


def _instructions() -> str:
  """A short name of what this machine's CPU can do."""
  lines = [platform.machine(), platform.processor()]
  try:
    first, _, _ = pathlib.Path('/proc/cpuinfo').read_text('utf-8').partition('\n\n')
    lines += [line for line in first.splitlines() if line.partition(':')[0].strip() in _CAN]
  except OSError:  # not Linux
    pass
  return hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:12]


def _make_room(chosen: pathlib.Path) -> None:
  """Deletes the oldest files beyond `MOST_BYTES`; other processes may do the same."""
  left = MOST_BYTES
  for path, stat in sorted(_files(chosen), key=lambda found: -found[1].st_mtime):
    left -= stat.st_size
    if left < 0:
      path.unlink(missing_ok=True)


def _files(chosen: pathlib.Path) -> Iterator[tuple[pathlib.Path, os.stat_result]]:
  """What JAX has written there; a folder of the user's may hold other files."""
  for path in chosen.glob('*-cache'):
    try:
      if path.is_file():
        yield path, path.stat()
    except FileNotFoundError:  # deleted meanwhile
      continue
