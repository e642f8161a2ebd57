"""JAX's cache on disk: the next process with the same shapes compiles nothing.

JAX's cache key covers the program, its own version and the kind of device, but not the instruction
set of a CPU: each kind of CPU has a folder of its own here, as machines may share a home folder.
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

MIN_COMPILE_SECONDS = 0.5  # a program that compiles faster is not worth a file
MAX_BYTES = 2**30
# Lines of /proc/cpuinfo that name the instruction set (x86 and ARM).
_CPU_FIELDS = (
  'vendor_id',
  'cpu family',
  'model',
  'flags',
  'CPU implementer',
  'CPU part',
  'Features',
)


def enable_compilation_cache(where: str, device: jax.Device) -> None:
  """Turns on JAX's cache on disk, from the next compilation on.

  If the folder cannot be used there is a warning, and the run compiles everything.

  Args:
    where: a folder, "auto" (see `folder`), or "off".
    device: the device that computes.

  Raises:
    UserError: `where` is a URL.
  """
  if '://' in where:
    raise UserError(
      f'compilation_cache is {where!r}; expected a local folder, "auto" or "off". For a URL set '
      'JAX_COMPILATION_CACHE_DIR instead.',
      parameters=['compilation_cache'],
    )
  if where == 'off':
    jax.config.update('jax_enable_compilation_cache', False)
    return
  if where == 'auto' and os.environ.get('JAX_COMPILATION_CACHE_DIR'):
    return  # JAX reads this variable itself
  try:
    chosen = folder(where, device.platform, os.environ)
    # Private: whoever can write here can run code as this user.
    chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
    _make_room(chosen)
    if not os.access(chosen, os.W_OK | os.X_OK):
      raise PermissionError(f'{chosen} cannot be written to')
  except (OSError, RuntimeError) as e:  # RuntimeError: the user has no home
    warnings.warn(
      f'Compiled programs cannot be kept for the next run: {e}. Give compilation_cache another '
      'folder, or "off".',
      stacklevel=2,
    )
    return
  jax.config.update('jax_compilation_cache_dir', str(chosen))
  if 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS' not in os.environ:
    jax.config.update('jax_persistent_cache_min_compile_time_secs', MIN_COMPILE_SECONDS)


def folder(where: str, kind: str, environment: Mapping[str, str]) -> pathlib.Path:
  """The cache folder for a kind of device.

  Args:
    where: a folder, or "auto" for prompt_jax/ in the user's cache folder.
    kind: platform of the device: "cpu", "gpu", ...
    environment: variables of the process.
  """
  root = _user_cache(environment) / 'prompt_jax' if where == 'auto' else pathlib.Path(where)
  return root / (f'cpu-{_instruction_set()}' if kind == 'cpu' else kind)


def kept_folder() -> pathlib.Path | None:
  """Where answers of models are kept, beside compiled programs; None where nothing is."""
  where = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
  on = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
  if not on or not where or '://' in where:
    return None
  return pathlib.Path(where) / 'answers'


def _user_cache(environment: Mapping[str, str]) -> pathlib.Path:
  """The user's cache folder by the rules of XDG, macOS or Windows."""
  given = pathlib.Path(environment.get('XDG_CACHE_HOME', ''))
  if given.is_absolute():  # XDG ignores relative paths
    return given
  home = pathlib.Path.home()
  if sys.platform == 'darwin':
    return home / 'Library' / 'Caches'
  if sys.platform == 'win32':
    return pathlib.Path(environment.get('LOCALAPPDATA') or home / 'AppData' / 'Local')
  return home / '.cache'


def _instruction_set() -> str:
  """A short digest of the instruction set of this machine's CPU."""
  lines = [platform.machine(), platform.processor()]
  try:
    first, _, _ = pathlib.Path('/proc/cpuinfo').read_text('utf-8').partition('\n\n')
    lines += [line for line in first.splitlines() if line.partition(':')[0].strip() in _CPU_FIELDS]
  except OSError:  # not Linux
    pass
  return hashlib.sha256('\n'.join(lines).encode()).hexdigest()[:12]


def _make_room(chosen: pathlib.Path) -> None:
  """Deletes the oldest files beyond `MAX_BYTES`; other processes may do so at the same time."""
  left = MAX_BYTES
  for path, stat in sorted(_files(chosen), key=lambda found: -found[1].st_mtime):
    left -= stat.st_size
    if left < 0:
      path.unlink(missing_ok=True)


def _files(chosen: pathlib.Path) -> Iterator[tuple[pathlib.Path, os.stat_result]]:
  """The files that JAX wrote; a user's folder may hold others."""
  for path in chosen.glob('*-cache'):
    try:
      if path.is_file():
        yield path, path.stat()
    except FileNotFoundError:  # another process deleted it
      continue
