"""Which accelerator computes, and what is said where one is there that JAX cannot use."""

import logging
import os
import pathlib
import warnings

import jax

from prompt_jax.errors import UserError, unknown
from prompt_jax.runtime import libtpu

KINDS = ('auto', 'cpu', 'gpu', 'tpu')
# What NVIDIA's driver puts there; the last two in containers and in WSL 2.
NVIDIA = ('/dev/nvidia0', '/proc/driver/nvidia/version', '/dev/nvidiactl', '/dev/dxg')
EXTRAS = {'gpu': 'cuda', 'tpu': 'tpu'}
_JAX_LOGGER = 'jax._src.xla_bridge'


def choose(kind: str) -> jax.Device:
  """Makes the first device of a kind the default one; "auto" leaves JAX its choice.

  Where that is the CPU although the machine has a GPU or TPU, a warning says so.

  Raises:
    UserError: an unknown kind, or this machine has none of it.
  """
  if kind not in KINDS:
    raise unknown('device', kind, KINDS)
  heard = _start_jax()
  if kind == 'auto':
    device = jax.local_devices()[0]
    if device.platform == 'cpu' and not os.environ.get('JAX_PLATFORMS'):
      _notice(heard)
    return device
  try:
    device = jax.local_devices(backend=kind)[0]
  except RuntimeError:
    raise UserError(
      f'A {kind} was demanded, but JAX finds none here; it finds: {_present()}. '
      f'{_remedy(kind, heard)}, or leave --device out to use what there is.'
    ) from None
  jax.config.update('jax_default_device', device)
  return device


class _Heard(logging.Filter):
  """What JAX logs of accelerators that it cannot use: kept from the terminal, to be told once.

  Attributes:
    problem: what a plugin failed with, one line; '' if none did.
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


def _start_jax() -> _Heard:
  """Lets JAX find its devices, if it has not yet.

  A plugin that cannot be loaded is only logged by JAX; one that is loaded and finds no device that
  it can use is an exception, after which there is the CPU.
  """
  if not libtpu.chips():
    libtpu.set_up()
  heard, logger = _Heard(), logging.getLogger(_JAX_LOGGER)
  logger.addFilter(heard)
  try:
    jax.devices()
  except RuntimeError as e:
    if os.environ.get('JAX_PLATFORMS'):
      raise UserError(
        f'JAX does not start with JAX_PLATFORMS={os.environ["JAX_PLATFORMS"]!r}: {_first_line(e)}. '
        'Unset it to use what there is.'
      ) from None
    heard.problem = _first_line(e)
    jax.config.update('jax_platforms', 'cpu')
    jax.devices()
  finally:
    logger.removeFilter(heard)
  return heard


def _remedy(kind: str, heard: _Heard) -> str:
  if limit := os.environ.get('JAX_PLATFORMS'):
    return f'JAX_PLATFORMS is {limit!r}, which hides others: unset it'
  if heard.problem:
    return f'JAX says "{heard.problem}": mend that'
  extra = f" (pip install 'prompt_jax[{EXTRAS[kind]}]')" if kind in EXTRAS else ''
  return f'Install the JAX for it{extra}'


def _notice(heard: _Heard) -> None:
  """Tells of an accelerator that is not used; of a machine without one there is nothing to say."""
  if any(pathlib.Path(file).exists() for file in NVIDIA):
    kind, name = 'gpu', 'an NVIDIA GPU'
  elif heard.tpu:
    kind, name = 'tpu', 'a TPU'
  else:
    return
  if heard.problem:
    why = f'JAX cannot use it, and says "{heard.problem}"'
  else:
    why = f"JAX for it is not installed (pip install 'prompt_jax[{EXTRAS[kind]}]')"
  warnings.warn(
    f'The CPU computes: there is {name}, but {why}. --device cpu says that this is meant.',
    stacklevel=3,
  )


def _first_line(message: object) -> str:
  """Of what JAX says, without its advice in brackets."""
  line = str(message).strip().partition('\n')[0]
  return line.partition(' (you may')[0].partition('(Set TF_CPP')[0].rstrip('.')


def _present() -> str:
  return ', '.join(sorted({f'{d.platform} ({d.device_kind})' for d in jax.devices()}))
