"""What the kernels of self-attention share: keys of all groups, meshes, a bias without gradient."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.models.attention.attend import KeysValues

Array = jax.Array
LEAST_CAPABILITY = 8.0  # of an NVIDIA GPU for cuDNN's attention


def all_keys_values(
  q: Array, groups: Sequence[KeysValues], keep: Array | None
) -> tuple[Array, Array]:
  """[B, K, N, D] keys and values of all groups; those that all rows share are repeated.

  Args:
    q: [B, Q, N, D].
    groups: see `models.attention.attend.attend`.
    keep: [B, N, 1, K] dropout's factor on the weights; the same for every query, so that it may as
      well scale the values.
  """
  k, v = (_joined(q, parts) for parts in zip(*groups, strict=True))
  return k, v if keep is None else v * jnp.moveaxis(keep, 3, 1).astype(v.dtype)


def _joined(q: Array, parts: Sequence[Array]) -> Array:
  whole = [jnp.broadcast_to(x, (q.shape[0], *x.shape[1:])).astype(q.dtype) for x in parts]
  return whole[0] if len(whole) == 1 else jnp.concatenate(whole, axis=1)


def on_mesh(
  call: Callable[..., Array], arrays: Sequence[Array], axes: Sequence[tuple[str | None, ...]]
) -> Array:
  """A call whose result lies as its first argument: a kernel is not cut by the compiler."""
  if jax.sharding.get_abstract_mesh().empty:
    return call(*arrays)
  specs = []
  for x, names in zip(arrays, axes, strict=True):
    cut = [name if n > 1 else None for name, n in zip(names, x.shape, strict=True)]
    specs.append(nn.logical_to_mesh_axes(cut))
  placed = jax.shard_map(call, in_specs=tuple(specs), out_specs=specs[0], check_vma=False)
  return placed(*arrays)


def refuse_bias_gradient(name: str) -> UserError:
  """The mistake of training what a kernel, "fused" or "cudnn", has no gradient of."""
  return UserError(
    f'What trains changes the relative position bias, of which the {name} attention has no '
    'gradient. Train other parameters, or give the attention "plain".',
    parameters=['attention'],
  )


def check_device(attention: str, device: jax.Device) -> None:
  """Refuses a kernel that a device has not, before anything is read or compiled.

  Args:
    attention: of `T5Config`.
    device: that is to compute.

  Raises:
    UserError: the kernel is for other devices.
  """
  if attention == 'fused' and device.platform != 'tpu':
    raise UserError(
      f'The fused attention is a kernel for TPUs, and this is a {device.platform}: '
      'give the attention "plain".',
      parameters=['attention'],
    )
  if attention != 'cudnn':
    return
  if 'cuda' not in device.client.platform_version:
    raise UserError(
      f'The cudnn attention is a kernel for NVIDIA GPUs, and this is a {device.platform}: '
      'give the attention "plain".',
      parameters=['attention'],
    )
  if float(device.compute_capability) < LEAST_CAPABILITY:
    raise UserError(
      f'The cudnn attention needs a GPU of compute capability {LEAST_CAPABILITY} or more (A100 and '
      f'later), and this {device.device_kind} has {device.compute_capability}: give '
      'the attention "plain".',
      parameters=['attention'],
    )
