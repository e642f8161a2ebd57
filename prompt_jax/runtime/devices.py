"""The device that computes, and a warning if there is an accelerator that JAX cannot use.

And JAX's cache on disk: the next process with the same shapes compiles nothing. JAX's cache key
covers the program, its own version and the kind of device, but not the instruction set of a CPU:
each kind of CPU has a folder of its own here, as machines may share a home folder.
"""

import contextlib
import hashlib
import logging
import os
import pathlib
import platform
import sys
import warnings
from collections.abc import Iterator, Mapping

import jax
from jax.experimental.compilation_cache import compilation_cache

from prompt_jax.errors import UserError, install, unknown
from prompt_jax.runtime import libtpu

KINDS = ('auto', 'cpu', 'gpu', 'tpu')
# What NVIDIA's driver puts there; the last two in containers and in WSL 2.
NVIDIA = ('/dev/nvidia0', '/proc/driver/nvidia/version', '/dev/nvidiactl', '/dev/dxg')
EXTRAS = {'gpu': 'cuda', 'tpu': 'tpu'}
_JAX_LOGGER = 'jax._src.xla_bridge'


def default_device() -> jax.Device:
  """The device chosen by `choose_device`, or JAX's first; its platform decides dtypes.

  `jax.default_backend()` ignores that choice: it says "gpu" although the CPU was chosen.
  """
  chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
  return chosen if isinstance(chosen, jax.Device) else jax.local_devices()[0]


def default_dtype(platform: str) -> str:
  """The dtype of frozen weights and of activations, unless one is given."""
  return 'float32' if platform == 'cpu' else 'bfloat16'


def choose_device(kind: str) -> jax.Device:
  """Makes the first device of a kind JAX's default; "auto" leaves the choice to JAX.

  If JAX chooses the CPU of a machine that has a GPU or TPU, a warning says why.

  Args:
    kind: one of `KINDS`.

  Raises:
    UserError: an unknown kind, or one that this machine does not have.
  """
  if kind not in KINDS:
    raise unknown('device', kind, KINDS, parameters=['device'])
  log = start_jax()
  if kind == 'auto':
    device = jax.local_devices()[0]
    if device.platform == 'cpu' and not os.environ.get('JAX_PLATFORMS'):
      _warn_of_unused(log)
    return device
  try:
    device = jax.local_devices(backend=kind)[0]
  except RuntimeError:
    raise UserError(
      f'The device is {kind!r}, but JAX finds none here; it finds: {_present()}. '
      f'{_remedy(kind, log)}, or give the device "auto" to use what there is.',
      parameters=['device'],
    ) from None
  jax.config.update('jax_default_device', device)
  return device


class _AcceleratorLog(logging.Filter):
  """What JAX logs about accelerators that it cannot use: held back, and reported once.

  Attributes:
    problem: the error of a plugin, one line; '' if there was none.
    tpu: whether the machine seems to have a TPU.
  """

  problem = ''
  tpu = False

  def filter(self, record: logging.LogRecord) -> bool:
    message = record.getMessage()
    if record.exc_info and record.exc_info[1]:
      self.problem = _first_line(record.exc_info[1])
      return False
    if 'backend failed to initialize' in message:
      self.problem = _first_line(message)
      return False
    self.tpu = self.tpu or 'TPU may be present' in message
    return 'may be present' not in message


def start_jax() -> _AcceleratorLog:
  """Lets JAX find its devices, if it has not yet.

  JAX logs a plugin that cannot be loaded, and raises an exception for one that is loaded and finds
  no usable device; after that the CPU is used.

  Raises:
    UserError: JAX_PLATFORMS names no device of this machine.
  """
  libtpu.quiet_without_tpu()
  log, logger = _AcceleratorLog(), logging.getLogger(_JAX_LOGGER)
  logger.addFilter(log)
  try:
    jax.devices()
  except (RuntimeError, AssertionError) as e:  # the latter, without a word, for a missing "cuda"
    if os.environ.get('JAX_PLATFORMS'):
      raise UserError(
        f'JAX does not start with JAX_PLATFORMS={os.environ["JAX_PLATFORMS"]!r}: '
        f'{_first_line(e) or "it has no such device"}. Unset it to use what there is, or set '
        'JAX_PLATFORMS=cpu; the JAX for an NVIDIA GPU is installed by the extra "cuda", that for a '
        f'TPU by "tpu" ({install("tpu")}).'
      ) from None
    log.problem = _first_line(e)
    jax.config.update('jax_platforms', 'cpu')
    jax.devices()
  finally:
    logger.removeFilter(log)
  return log


def _remedy(kind: str, log: _AcceleratorLog) -> str:
  if limit := os.environ.get('JAX_PLATFORMS'):
    return f'JAX_PLATFORMS is {limit!r}, which hides other devices: unset it'
  if log.problem:
    return f'JAX says "{log.problem}": fix that'
  extra = f' ({install(EXTRAS[kind])})' if kind in EXTRAS else ''
  return f'Install the JAX for it{extra}'


def _warn_of_unused(log: _AcceleratorLog) -> None:
  """Warns if this machine has an accelerator that JAX does not use."""
  if any(pathlib.Path(file).exists() for file in NVIDIA):
    kind, name = 'gpu', 'an NVIDIA GPU'
  elif log.tpu:
    kind, name = 'tpu', 'a TPU'
  else:
    return
  if log.problem:
    why = f'JAX cannot use it, and says "{log.problem}"'
  else:
    why = f'JAX for it is not installed ({install(EXTRAS[kind])})'
  warnings.warn(
    f'Running on the CPU: there is {name}, but {why}. Give the device "cpu" to silence this.',
    stacklevel=3,
  )


def _first_line(message: object) -> str:
  """The first line of a message of JAX, without the advice in brackets."""
  line = str(message).strip().partition('\n')[0]
  return (
    line.partition(' (you may')[0]
    .partition('(Set TF_CPP')[0]
    .partition(' (set JAX_PL')[0]
    .rstrip('.')
  )


def _present() -> str:
  return ', '.join(sorted({f'{d.platform} ({d.device_kind})' for d in jax.devices()}))


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


@contextlib.contextmanager
def without_compilation_cache() -> Iterator[None]:
  """What is compiled inside is neither read from the cache nor kept there.

  For programs of devices that are only described: they cannot be read where there are none.
  """
  before = jax.config.jax_enable_compilation_cache  # type: ignore[attr-defined]
  jax.config.update('jax_enable_compilation_cache', False)
  compilation_cache.reset_cache()  # JAX decides once for a process whether it has one
  try:
    yield
  finally:
    jax.config.update('jax_enable_compilation_cache', before)
    compilation_cache.reset_cache()


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
