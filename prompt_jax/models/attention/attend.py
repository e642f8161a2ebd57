"""Attention weights and what they pick out; whole, or some queries at a time.

Also what the kernels share: keys of all groups, meshes, a bias without gradient, and how values
between parameters are partitioned over devices.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from prompt_jax.errors import UserError

Array = jax.Array


def constrained(x: Array, *axes: str) -> Array:
  """`x` cut as the rules in use say for its logical axes; `x` itself where there are none.

  A dimension of one, such as the batch of a prompt that is the same for every row, stays whole.
  One without a number yet, of a program to be exported, is not one of one.
  """
  names = tuple(name if n != 1 else None for name, n in zip(axes, x.shape, strict=True))
  return nn.with_logical_constraint(x, names)


KeysValues = tuple[Array, Array]  # keys and values, each [B|1, K, N, D]
MASKED = -1e10  # T5X's value; finite, so that a fully masked row stays finite too


def attend(
  q: Array,
  groups: Sequence[KeysValues],
  mask: Array,
  bias: Array | None,
  keep: Array | None,
  *,
  scores_dtype: str,
  chunk: int | None,
  softcap: float | None = None,
) -> Array:
  """softmax(q k^T + bias) v over all keys of all groups that the mask shows.

  Args:
    q: [B, Q, N, D].
    groups: keys and values [B|1, K_i, N, D]; a batch axis of 1 is seen by all rows and never
      repeated for them.
    mask: bool[B|1, 1, Q|1, K] true where a query sees a key; K the sum of K_i.
    bias: [B|1, N, Q, K] added to the logits.
    keep: [B, N, 1, K] dropout's factor on the weights.
    scores_dtype: of logits and weights; with "bfloat16" they take half the memory traffic.
    chunk: most queries at a time, so that never more than [B, N, chunk, K] logits exist, in the
      backward pass neither; None for all at once.
    softcap: c, where the logits without the bias are c tanh(q k^T / c); None for q k^T.

  Returns:
    [B, Q, N, D].
  """
  dtype = jnp.dtype(scores_dtype)
  if chunk is None or q.shape[1] <= chunk:
    weights = _weights(q, groups, mask, bias, dtype, softcap)
    if q.dtype == jnp.float32:  # the softmax's backward needs them in float32
      weights = checkpoint_name(weights, 'weights')
    return _mixed(weights, groups, keep)
  size = _chunk_size(q.shape[1], chunk)
  count = -(-q.shape[1] // size)
  padding = count * size - q.shape[1]
  widen = lambda x, axis: _pad(x, axis, padding)
  q_all, mask, bias = widen(q, 1), widen(mask, 2), None if bias is None else widen(bias, 2)

  @jax.checkpoint
  def one(start: Array) -> Array:
    cut = lambda x, axis: jax.lax.dynamic_slice_in_dim(x, start, size, axis)
    own = mask if mask.shape[2] == 1 else cut(mask, 2)
    own_bias = None if bias is None else cut(bias, 2)
    return _mixed(_weights(cut(q_all, 1), groups, own, own_bias, dtype, softcap), groups, keep)

  parts = jax.lax.map(one, jnp.arange(count) * size)  # [count, B, size, N, D]
  whole = jnp.moveaxis(parts, 0, 1).reshape(q_all.shape)
  return whole[:, : q.shape[1]]


def _weights(
  q: Array,
  groups: Sequence[KeysValues],
  mask: Array,
  bias: Array | None,
  dtype: jnp.dtype,
  softcap: float | None,
) -> Array:
  """[B, N, Q, K] in the dtype of q."""
  parts = [_logits(q, k.astype(q.dtype), dtype) for k, _ in groups]
  logits = parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
  if softcap is not None:
    logits = softcap * jnp.tanh(logits / softcap)
  if bias is not None:
    logits = logits + bias.astype(dtype)
  return jax.nn.softmax(jnp.where(mask, logits, MASKED), axis=-1).astype(q.dtype)


def _mixed(weights: Array, groups: Sequence[KeysValues], keep: Array | None) -> Array:
  """[B, Q, N, D] the values of all groups, weighted."""
  weights = weights if keep is None else weights * keep
  ends = list(itertools.accumulate(v.shape[1] for _, v in groups))
  parts = zip(jnp.split(weights, ends[:-1], axis=-1), groups, strict=True)
  return functools.reduce(jnp.add, [_values(w, v.astype(w.dtype)) for w, (_, v) in parts])


def _logits(q: Array, k: Array, dtype: jnp.dtype) -> Array:
  """[B, Q, N, D], [B|1, K, N, D] -> [B, N, Q, K]."""
  if k.shape[0] == q.shape[0]:
    return jnp.einsum('bqnd,bknd->bnqk', q, k, preferred_element_type=dtype)
  return jnp.einsum('bqnd,knd->bnqk', q, k[0], preferred_element_type=dtype)


def _values(weights: Array, v: Array) -> Array:
  """[B, N, Q, K], [B|1, K, N, D] -> [B, Q, N, D]."""
  if v.shape[0] == weights.shape[0]:
    return jnp.einsum('bnqk,bknd->bqnd', weights, v)
  return jnp.einsum('bnqk,knd->bqnd', weights, v[0])


def _chunk_size(queries: int, most: int) -> int:
  """The largest divisor of the queries that is at most, and not far below, `most`; or `most`."""
  divisors = [n for n in range(most // 2, most + 1) if n and queries % n == 0]
  return max(divisors, default=most)


def _pad(x: Array, axis: int, padding: int) -> Array:
  if not padding or x.shape[axis] == 1:
    return x
  return jnp.pad(x, [(0, padding if i == axis else 0) for i in range(x.ndim)])


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
