"""Self-attention as one TPU kernel: logits and weights never leave the chip's vector memory.

A grid step holds all keys of an example, for the heads that fill the lanes of a vector. So a
softmax is whole at once, and the backward pass makes the weights again from queries, keys and
values alone, which a layer keeps anyway: the kernel keeps nothing else. Heads are distinguished by
masking lanes, since a matrix unit multiplies 128 lanes as fast as 64.

JAX's own `pallas.ops.tpu.flash_attention` takes a bias of every example, and writes the gradient of
it: [B, N, Q, K] each, the very traffic that is to be saved.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from prompt_jax.errors import UserError
from prompt_jax.models.attention.attend import (
  MASKED,
  KeysValues,
  all_keys_values,
  on_mesh,
  refuse_bias_gradient,
)

Array = jax.Array
MOST_KEYS = 2048  # that fit into the vector memory of every chip, with what is made of them
_OUTSIDE = float(jnp.finfo(jnp.float32).min)  # keys past the last: below MASKED, so never seen
_LANES = 128  # of a vector; also the queries whose logits exist at a time
_TILE = 640 * 640  # most biases of one head in the vector memory
_PRODUCT = (((1,), (0,)), ((), ()))  # a b
_OVER_LANES = (((1,), (1,)), ((), ()))  # a b^T
_OVER_ROWS = (((0,), (0,)), ((), ()))  # a^T b
# A chip with two cores gives each a part of what is parallel.
_ORDER = pltpu.CompilerParams(dimension_semantics=('parallel', 'parallel', 'arbitrary'))


def attend_fused(
  q: Array,
  groups: Sequence[KeysValues],
  mask: Array,
  bias: Array,
  keep: Array | None,
  *,
  scores_dtype: str,
) -> Array:
  """`models.attention.attend.attend` as a kernel; softmax in float32.

  On a mesh each device does its part.

  Args:
    q: [B, Q, N, D].
    groups: as `attend`; at most `MOST_KEYS` keys together.
    mask: bool[B|1, 1, Q|1, K].
    bias: [B|1, N, Q, K]; it has no gradient.
    keep: [B, N, 1, K] dropout's factor on the weights.
    scores_dtype: in which the bias is read.

  Returns:
    [B, Q, N, D].

  Raises:
    UserError: more keys than fit, or the bias is differentiated.
  """
  if bias.shape[-1] > MOST_KEYS:
    raise UserError(
      f'The fused attention takes {MOST_KEYS} positions at most, and there are {bias.shape[-1]}. '
      'Give shorter inputs, or the attention "plain".',
      parameters=['attention'],
    )
  k, v = all_keys_values(q, groups, keep)
  flat = lambda x: x.reshape(*x.shape[:2], -1)
  arrays = (flat(q), flat(k), flat(v), bias.astype(scores_dtype), mask[:, 0].astype(jnp.int32))
  axes = (('batch', None, 'heads'),) * 3 + (('batch', 'heads', None, None), ('batch', None, None))
  return on_mesh(functools.partial(_fused, q.shape[-1]), arrays, axes).reshape(q.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(head_dim: int, q: Array, k: Array, v: Array, bias: Array, mask: Array) -> Array:
  """[B, Q, N D] from q of that shape, k and v [B, K, N D], int32 mask [B|1, Q|1, K]."""
  return _forward(head_dim, q, k, v, bias, mask)


def _fused_forward(head_dim: int, *inputs: Any) -> tuple[Array, tuple[Array, ...]]:
  if inputs[3].perturbed:
    raise refuse_bias_gradient('fused')
  arrays = tuple(x.value for x in inputs)
  return _forward(head_dim, *arrays), arrays


def _fused_backward(head_dim: int, arrays: tuple[Array, ...], dy: Any) -> tuple[Any, ...]:
  if isinstance(dy, jax.custom_derivatives.SymbolicZero):
    return (None,) * len(arrays)
  q, k, v, bias, mask = arrays
  return *_backward(head_dim, q, k, v, bias, mask, dy), None, None


_fused.defvjp(_fused_forward, _fused_backward, symbolic_zeros=True)


class _Sizes(NamedTuple):
  """Of one call; a grid step takes the rows of a tile, and all keys, of one group of heads."""

  batch: int
  queries: int
  keys: int
  head_dim: int
  heads: int
  group: int
  rows: int
  columns: int  # the keys, and what fills their last vector

  @property
  def width(self) -> int:
    return self.group * self.head_dim

  @property
  def groups(self) -> int:
    return self.heads // self.group

  @property
  def tiles(self) -> int:
    return -(-self.queries // self.rows)


def _sizes(head_dim: int, q: Array, k: Array) -> _Sizes:
  heads = q.shape[2] // head_dim
  whole = (n for n in range(1, heads) if heads % n == 0 and n * head_dim % _LANES == 0)
  rows, columns = _rounded(q.shape[1]), _rounded(k.shape[1])
  vectors = rows // _LANES
  divisors = [n for n in range(1, vectors + 1) if vectors % n == 0]
  most = max((n for n in divisors if n * _LANES * columns <= _TILE), default=1)
  return _Sizes(
    batch=q.shape[0],
    queries=q.shape[1],
    keys=k.shape[1],
    head_dim=head_dim,
    heads=heads,
    group=next(whole, heads),
    rows=most * _LANES,
    columns=columns,
  )


def _rounded(length: int) -> int:
  return -(-length // _LANES) * _LANES


def _forward(head_dim: int, q: Array, k: Array, v: Array, bias: Array, mask: Array) -> Array:
  s = _sizes(head_dim, q, k)
  at = lambda index: lambda n, i, b: index(b, n, i)  # with b last a bias of all rows is read once
  rows, keys, *rest = _specs(s, bias, mask, at)
  return pl.pallas_call(
    functools.partial(_forward_kernel, s),
    grid=(s.groups, s.tiles, s.batch),
    in_specs=[rows, keys, keys, *rest],
    out_specs=rows,
    out_shape=_like(q),
    cost_estimate=_cost(s, 2, (q, q), (k, v), 1, bias, mask),
    compiler_params=_ORDER,
    name='fused_attention',
  )(q, k, v, bias, mask)


def _backward(
  head_dim: int, q: Array, k: Array, v: Array, bias: Array, mask: Array, dy: Array
) -> Any:
  s = _sizes(head_dim, q, k)
  at = lambda index: lambda n, b, i: index(b, n, i)  # with i last the keys' sums stay
  rows, keys, *rest = _specs(s, bias, mask, at)
  reads = s.batch if s.tiles > 1 and bias.shape[0] == 1 else 1
  return pl.pallas_call(
    functools.partial(_backward_kernel, s),
    grid=(s.groups, s.batch, s.tiles),
    in_specs=[rows, keys, keys, *rest, rows],
    out_specs=[rows, keys, keys],
    out_shape=[_like(q), _like(k), _like(v)],
    scratch_shapes=[pltpu.VMEM((s.columns, s.width), jnp.float32)] * 2,
    cost_estimate=_cost(s, 5, (q, q, dy), (k, v, k, v), reads, bias, mask),
    compiler_params=_ORDER,
    name='fused_attention_backward',
  )(q, k, v, bias, mask, dy)


def _like(x: Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _specs(
  s: _Sizes, bias: Array, mask: Array, at: Callable[..., Callable[..., Any]]
) -> list[pl.BlockSpec]:
  """Of queries, keys, bias and mask; `at` orders (row of the batch, group, tile) as the grid."""
  batch = lambda x, b: b if x.shape[0] > 1 else 0
  by_query = mask.shape[1] > 1
  seen = (1, s.rows if by_query else 1, s.columns)
  return [
    pl.BlockSpec((1, s.rows, s.width), at(lambda b, n, i: (b, i, n))),
    pl.BlockSpec((1, s.columns, s.width), at(lambda b, n, i: (b, 0, n))),
    pl.BlockSpec((1, s.group, s.rows, s.columns), at(lambda b, n, i: (batch(bias, b), n, i, 0))),
    pl.BlockSpec(seen, at(lambda b, n, i: (batch(mask, b), i if by_query else 0, 0))),
  ]


def _cost(
  s: _Sizes,
  products: int,
  rows: Sequence[Array],
  keys: Sequence[Array],
  reads: int,
  bias: Array,
  mask: Array,
) -> pl.CostEstimate:
  """What a call declares: the products that are wanted, not what tiles and lanes add to them.

  Args:
    s: of the call.
    products: matrix products for each logit.
    rows: arrays that are read or written by the tile.
    keys: arrays that are read or written whole.
    reads: how often the bias is.
    bias: as it is given.
    mask: as it is given.
  """
  logits = s.batch * s.heads * s.queries * s.keys
  size = lambda x: math.prod(x.shape) * x.dtype.itemsize
  moved = sum(map(size, (*rows, *keys))) + reads * size(bias) + s.groups * s.tiles * size(mask)
  return pl.CostEstimate(
    flops=2 * products * logits * s.head_dim, transcendentals=logits, bytes_accessed=moved
  )


def _forward_kernel(
  s: _Sizes, q_ref: Any, k_ref: Any, v_ref: Any, bias_ref: Any, mask_ref: Any, y_ref: Any
) -> None:
  k, v = k_ref[0], _first(v_ref[0], s.keys)

  def step(part: Array, _: None) -> None:
    rows = pl.ds(part * _LANES, _LANES)
    q = q_ref[0, rows]
    y = jnp.zeros(q.shape, jnp.float32)
    for head in range(s.group):
      weights = _weights(s, head, q, k, bias_ref, mask_ref, rows)[0]
      y = _own(s, head, _dot(weights.astype(v.dtype), v, _PRODUCT), y)
    y_ref[0, rows] = y.astype(y_ref.dtype)

  jax.lax.fori_loop(0, s.rows // _LANES, step, None)


def _backward_kernel(s: _Sizes, *refs: Any) -> None:
  """With p the weights and o = p v: dv = p^T do, dp = do v^T, ds = p (dp - sum(p dp)) and from it
  dq = ds k, dk = ds^T q."""
  q_ref, k_ref, v_ref, bias_ref, mask_ref, dy_ref, dq_ref, dk_ref, dv_ref, dk_sum, dv_sum = refs
  tile = pl.program_id(2)

  @pl.when(tile == 0)
  def begin() -> None:
    dk_sum[...] = jnp.zeros_like(dk_sum)
    dv_sum[...] = jnp.zeros_like(dv_sum)

  k, v = _first(k_ref[0], s.keys), _first(v_ref[0], s.keys)

  def step(part: Array, _: None) -> None:
    rows = pl.ds(part * _LANES, _LANES)
    left = s.queries - tile * s.rows - part * _LANES
    q, dy = _first(q_ref[0, rows], left), _first(dy_ref[0, rows], left)
    dq = jnp.zeros(q.shape, jnp.float32)
    dk, dv = jnp.zeros_like(dk_sum), jnp.zeros_like(dv_sum)
    for head in range(s.group):
      weights, seen = _weights(s, head, q, k, bias_ref, mask_ref, rows)
      weights = _first(weights, left)
      change = _dot(_own(s, head, dy, jnp.zeros_like(dy)), v, _OVER_LANES)
      mean = jnp.sum(weights * change, axis=-1, keepdims=True)
      change = jnp.where(seen, weights * (change - mean), 0).astype(q.dtype)
      dq = _own(s, head, _dot(change, k, _PRODUCT), dq)
      dk = _own(s, head, _dot(change, q, _OVER_ROWS), dk)
      dv = _own(s, head, _dot(weights.astype(dy.dtype), dy, _OVER_ROWS), dv)
    dq_ref[0, rows] = dq.astype(dq_ref.dtype)
    dk_sum[...] += dk
    dv_sum[...] += dv

  jax.lax.fori_loop(0, s.rows // _LANES, step, None)

  @pl.when(tile == pl.num_programs(2) - 1)
  def end() -> None:
    dk_ref[0] = dk_sum[...].astype(dk_ref.dtype)
    dv_ref[0] = dv_sum[...].astype(dv_ref.dtype)


def _weights(
  s: _Sizes, head: int, q: Array, k: Array, bias_ref: Any, mask_ref: Any, rows: Any
) -> tuple[Array, Array]:
  """float32[rows, K] of one head, and bool[rows|1, K] which keys its queries see."""
  logits = _dot(_own(s, head, q, jnp.zeros_like(q)), k, _OVER_LANES)
  logits = logits + bias_ref[0, head, rows].astype(jnp.float32)
  mask = mask_ref[0] if mask_ref.shape[1] == 1 else mask_ref[0, rows]
  inside = jax.lax.broadcasted_iota(jnp.int32, mask.shape, 1) < s.keys
  seen = inside & (mask != 0)
  logits = jnp.where(seen, logits, jnp.where(inside, MASKED, _OUTSIDE))
  powers = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
  return powers * (1 / jnp.sum(powers, axis=-1, keepdims=True)), seen


def _own(s: _Sizes, head: int, x: Array, others: Array) -> Array:
  """`x` in the lanes of a head, `others` in the rest."""
  if s.group == 1:
    return x
  lane = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
  return jnp.where((lane >= head * s.head_dim) & (lane < (head + 1) * s.head_dim), x, others)


def _first(x: Array, count: int | Array) -> Array:
  """The first rows of `x`, zeros below: what lies past the end of an array is anything."""
  return jnp.where(jax.lax.broadcasted_iota(jnp.int32, x.shape, 0) < count, x, jnp.zeros_like(x))


def _dot(a: Array, b: Array, dimensions: Any) -> Array:
  return jax.lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)
