"""Which accelerator computes."""

import os

import jax

from prompt_jax.errors import UserError, unknown

KINDS = ('auto', 'cpu', 'gpu', 'tpu')


def choose(kind: str) -> jax.Device:
  """Makes the first device of a kind the default one; "auto" leaves JAX its choice.

  Raises:
    UserError: an unknown kind, or this machine has none of it.
  """
  if kind not in KINDS:
    raise unknown('device', kind, KINDS)
  if kind == 'auto':
    return jax.local_devices()[0]
  try:
    device = jax.local_devices(backend=kind)[0]
  except RuntimeError:
    limit = os.environ.get('JAX_PLATFORMS')
    why = f' JAX_PLATFORMS is {limit!r}, which hides others.' if limit else ''
    raise UserError(
      f'A {kind} was demanded, but JAX finds none here; it finds: {_present()}.{why} '
      f'Install the JAX for it, or leave --device out to use what there is.'
    ) from None
  jax.config.update('jax_default_device', device)
  return device


def _present() -> str:
  return ', '.join(sorted({f'{d.platform} ({d.device_kind})' for d in jax.devices()}))
