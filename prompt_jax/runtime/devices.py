"""The device that computes, and a warning if there is an accelerator that JAX cannot use."""

import logging
import os
import pathlib
import warnings

import jax

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
