"""The parts of a T5 layer, with T5X's numerics and parameter names, and frozen matrices in int8.

T5 scales no attention logits by 1/sqrt(D) (it is folded into the initialisation of the query
kernel), normalises by root mean square without a bias, and has no biases in its matrices.

A matrix in int8 has a float32 scale per channel and is dequantised in the operand of its product,
so no other copy of it is ever in memory. Only what is frozen can be stored so: a rounded value has
no gradient.
"""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from prompt_jax.errors import UserError
from prompt_jax.injections import Inside
from prompt_jax.models.attention.attend import KeysValues, attend, constrained
from prompt_jax.models.t5.config import T5Config

Array = jax.Array
_LARGEST = 127  # of int8, the same on both sides of 0


@struct.dataclass
class Int8:
  """values * scale.

  Attributes:
    values: int8[..., I, O] of a kernel, int8[V, H] of an embedding table.
    scale: float32[..., 1, O] one per output of a kernel, float32[V, 1] one per row of a table.
  """

  values: Array
  scale: Array

  @property
  def shape(self) -> tuple[int, ...]:
    return self.values.shape


Matrix = Array | Int8


def scaled_axis(path: str) -> int | None:
  """The axis along which a leaf has one scale, by its path; None where it stays as it is."""
  return {'kernel': -2, 'embedding': -1}.get(path.rpartition('/')[2])


def quantise(path: str, array: np.ndarray) -> np.ndarray | Int8:
  """A leaf of a backbone by its path: kernels and the embedding table in int8, others unchanged.

  Each value is rounded to the nearest of 255, which span the largest of its channel.
  """
  axis = scaled_axis(path)
  if axis is None:
    return array
  wide = np.asarray(array, np.float32)
  largest = np.max(np.abs(wide), axis=axis, keepdims=True)
  scale = np.where(largest > 0, largest / _LARGEST, 1).astype(np.float32)
  return Int8(np.rint(wide / scale).astype(np.int8), scale)  # type: ignore[arg-type]


def wide(matrix: Matrix) -> Array:
  """The matrix itself, in float32 where it was in int8."""
  return matrix.values * matrix.scale if isinstance(matrix, Int8) else matrix


def kernel_parts(kernel: Matrix, dtype: jax.typing.DTypeLike) -> tuple[Array, Array | None]:
  """([I, O] in the dtype, float32[O] to multiply the product by)."""
  if isinstance(kernel, Int8):
    return kernel.values.astype(dtype), kernel.scale[0]
  return kernel.astype(dtype), None


def table_parts(table: Matrix, dtype: jax.typing.DTypeLike) -> tuple[Array, Array | None]:
  """([V, H] in the dtype, float32[V] to multiply products with its rows by)."""
  if isinstance(table, Int8):
    return table.values.astype(dtype), table.scale[:, 0]
  return table.astype(dtype), None


def rows(table: Matrix, ids: Array, dtype: jax.typing.DTypeLike) -> Array:
  """Rows of an embedding table: int32[...] -> [..., H]."""
  if not isinstance(table, Int8):
    return jnp.take(table, ids, axis=0).astype(dtype)
  take = lambda x: jnp.take(x, ids, axis=0)
  return (take(table.values).astype(jnp.float32) * take(table.scale)).astype(dtype)


_kernel_init = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')
_relpos_init = nn.initializers.variance_scaling(1.0, 'fan_avg', 'uniform')
_ACTIVATIONS = {'gelu': nn.gelu, 'relu': nn.relu, 'linear': lambda x: x}
# What a layer keeps for its backward pass by these names; all else (norms, activations, dropout,
# and in bfloat16 the attention weights) is cheaper to compute again than to store and read.
KEPT = ('projected', 'weights', 'residual', 'mlp_input')


class RMSNorm(nn.Module):
  """x / sqrt(mean(x^2) + 1e-6) * scale, computed in float32 (T5X `LayerNorm`)."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + 1e-6)
    return y.astype(x.dtype) * _as_last_axis(scale.astype(x.dtype), x.ndim)


def _as_last_axis(vector: Array, rank: int) -> Array:
  """[H] -> [1, ..., 1, H], to be multiplied with an array of that rank."""
  return jnp.expand_dims(vector, tuple(range(rank - 1)))


def matmul(x: Array, kernel: Matrix, dtype: jax.typing.DTypeLike) -> Array:
  """[..., S, I] @ [I, O] in a dtype, the kernel cast to that of x; as one matrix where free.

  On a CPU the kernel's gradient then needs no transposed copies, a quarter of the time of a step
  that trains everything. 16 rows are whole tiles of a TPU, which would have to move others.
  """
  rows = x.reshape(-1, x.shape[-1]) if x.shape[-2] % 16 == 0 else x
  matrix, scale = kernel_parts(kernel, x.dtype)
  y = jnp.matmul(rows, matrix, preferred_element_type=dtype)
  y = y if scale is None else (y * _as_last_axis(scale, y.ndim)).astype(dtype)
  return y.reshape(*x.shape[:-1], kernel.shape[-1])


class Dense(nn.Module):
  """x @ kernel; the kernel is cast to the dtype of x. `scale` multiplies its initial value."""

  features: int
  scale: float = 1.0

  @nn.compact
  def __call__(self, x: Array) -> Array:
    init = lambda *args: _kernel_init(*args) * self.scale
    return matmul(x, self.param('kernel', init, (x.shape[-1], self.features)), x.dtype)


class LogitsDense(nn.Module):
  """The untied output layer: float32 logits for any dtype of x."""

  features: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param('kernel', _kernel_init, (x.shape[-1], self.features))
    return constrained(matmul(x, kernel, jnp.float32), 'batch', 'length', 'vocab')


class TokenTable(nn.Module):
  """The token embeddings, which may be the output layer too.

  Attributes:
    rows: V.
    width: H.
    dtype: of what is computed.
    scale: what embeddings are multiplied by.
    logits_scale: what states are multiplied by before the output layer.
    spread: standard deviation of the first values.
  """

  rows: int
  width: int
  dtype: str
  scale: float = 1.0
  logits_scale: float = 1.0
  spread: float = 1.0

  def setup(self):
    start = nn.initializers.normal(self.spread)
    self.embedding = self.param('embedding', start, (self.rows, self.width))

  def __call__(self, tokens: Array) -> Array:
    """A gather: a one-hot product would cost more than the layers at mT5's vocabulary."""
    x = rows(self.embedding, tokens, self.dtype)
    x = x if self.scale == 1 else x * jnp.asarray(self.scale, x.dtype)
    return constrained(x, 'batch', 'length', 'embed')

  def attend(self, x: Array) -> Array:
    """[B, Q, H] states -> float32[B, Q, V] logits from the table."""
    table, scale = table_parts(self.embedding, x.dtype)
    x = x if self.logits_scale == 1 else x * self.logits_scale
    logits = jnp.einsum('bqh,vh->bqv', x, table, preferred_element_type=jnp.float32)
    logits = logits if scale is None else logits * scale[None, None]
    return constrained(logits, 'batch', 'length', 'vocab')


def relative_buckets(
  query: Array, key: Array, unbiased: Array | None, *, bidirectional: bool, cfg: T5Config
) -> Array:
  """Bucket of the distance from each query position to each key position.

  Half of the buckets are exact distances, the other half logarithmic up to
  `cfg.relpos_max_distance` (Raffel et al. 2020, section 2.1).

  Args:
    query: int32[..., Q] positions.
    key: int32[..., K] positions.
    unbiased: bool[..., K] keys without a bias: they get a bucket outside the table.
    bidirectional: buckets for keys after the query too.
    cfg: the architecture.

  Returns:
    int32[..., Q, K].
  """
  relative = key[..., None, :] - query[..., :, None]
  count = cfg.relpos_buckets // 2 if bidirectional else cfg.relpos_buckets
  offset = jnp.where(relative > 0, count, 0) if bidirectional else 0
  distance = jnp.abs(relative) if bidirectional else jnp.maximum(-relative, 0)
  exact = count // 2
  # The epsilon keeps exact powers in their own bucket under float32 rounding, as in T5X.
  ratio = jnp.log(distance.astype(jnp.float32) / exact + jnp.finfo(jnp.float32).eps)
  ratio = ratio / jnp.log(cfg.relpos_max_distance / exact) * (count - exact)
  large = jnp.minimum(exact + ratio.astype(jnp.int32), count - 1)
  bucket = offset + jnp.where(distance < exact, distance, large)
  if unbiased is None:
    return bucket
  return jnp.where(unbiased[..., None, :], cfg.relpos_buckets, bucket)


class RelativeBias(nn.Module):
  """A learned number per head and bucket, added to attention logits."""

  cfg: T5Config

  @nn.compact
  def __call__(self, buckets: Array) -> Array:
    """int32[..., Q, K] -> float32[B|1, N, Q, K]; a bucket outside the table gives 0."""
    shape = (self.cfg.num_heads, self.cfg.relpos_buckets)
    table = self.param('rel_embedding', _relpos_init, shape).astype(jnp.float32)
    bias = jnp.take(table, buckets, axis=1, mode='fill', fill_value=0)  # [N, ..., Q, K]
    return bias[None] if buckets.ndim == 2 else jnp.moveaxis(bias, 0, 1)


@struct.dataclass
class SelfCache:
  """Keys and values of the decoder's self attention, carried through the layers.

  Attributes:
    keys: [L, B, M, N, D]; the first rows hold the injected keys, if any.
    values: as `keys`.
    start: int32[] row where this call's first key goes.
    layer: int32[] the layer whose turn it is.
    visible: bool[B, M] false where there is only room (see `Injection.lengths`); None where all
      rows hold something, or are still to come.
  """

  keys: Array
  values: Array
  start: Array
  layer: Array
  visible: Array | None = None

  def append(self, kv: KeysValues) -> tuple['SelfCache', KeysValues]:
    """Writes this layer's new keys and values; returns all of the layer's."""
    at = (self.layer, 0, self.start, 0, 0)
    keys = jax.lax.dynamic_update_slice(self.keys, kv[0][None].astype(self.keys.dtype), at)
    values = jax.lax.dynamic_update_slice(self.values, kv[1][None].astype(self.values.dtype), at)
    pick = lambda x: jax.lax.dynamic_index_in_dim(x, self.layer, keepdims=False)
    cache = dataclasses.replace(self, keys=keys, values=values, layer=self.layer + 1)
    return cache, (pick(keys), pick(values))


def edited_inside(edits: Inside, point: str, y: Array, x: Array) -> Array:
  """y after the edits of one layer at a point, one after the other; in the dtype of y.

  Raises:
    UserError: an edit changes the shape.
  """
  for edit in edits:
    if edit.point != point:
      continue
    found = edit.fn(edit.theta, y, x)
    if found.shape != y.shape:
      raise UserError(
        f'An edit inside the layers at {point!r} makes {list(found.shape)} of {list(y.shape)}; '
        'expected the same shape.'
      )
    y = found.astype(y.dtype)
  return y


class Attention(nn.Module):
  """Multi-head attention. Project keys and values with `keys_values`, then call.

  `may_fuse` where `T5Config.attention` decides; other attention is plain.
  """

  cfg: T5Config
  deterministic: bool
  may_fuse: bool = False

  def setup(self):
    joined = self.cfg.num_heads * self.cfg.head_dim
    self.query = Dense(joined, scale=self.cfg.head_dim**-0.5)
    self.key = Dense(joined)
    self.value = Dense(joined)
    self.out = Dense(self.cfg.emb_dim)
    self.dropout = nn.Dropout(self.cfg.dropout_rate, broadcast_dims=(-2,))

  def _heads(self, x: Array) -> Array:
    # Named before the split: a last axis of D = 64 would be padded to 128 in a TPU's memory.
    x = checkpoint_name(x, 'projected')
    x = x.reshape(*x.shape[:-1], self.cfg.num_heads, self.cfg.head_dim)
    return constrained(x, 'batch', 'length', 'heads', 'kv')

  def keys_values(self, x: Array, inside: Inside = ()) -> KeysValues:
    key = edited_inside(inside, 'key', self.key(x), x)
    return self._heads(key), self._heads(edited_inside(inside, 'value', self.value(x), x))

  def __call__(
    self,
    x: Array,
    groups: Sequence[KeysValues],
    mask: Array,
    bias: Array | None,
    inside: Inside = (),
  ) -> Array:
    """Attends to all keys of all groups.

    Args:
      x: [B, Q, H].
      groups: keys and values [B|1, K_i, N, D]; a batch axis of 1 is seen by all rows and never
        repeated for them.
      mask: bool[B|1, 1, Q|1, K], K the sum of K_i.
      bias: [B|1, N, Q, K].
      inside: edits of this layer.

    Returns:
      [B, Q, H].
    """
    q, cfg, keep = self._heads(edited_inside(inside, 'query', self.query(x), x)), self.cfg, None
    if cfg.dropout_rate and not self.deterministic:
      # The same keys are dropped for every query.
      keys = sum(k.shape[1] for k, _ in groups)
      ones = jnp.ones((q.shape[0], q.shape[2], 1, keys), q.dtype)
      keep = self.dropout(ones, deterministic=False)
    if self.may_fuse and cfg.attention != 'plain':
      assert bias is not None  # of relative positions, as all self-attention has it
      y = _in_kernel(q, groups, mask, bias, keep, cfg)
    else:
      y = attend(q, groups, mask, bias, keep, scores_dtype=cfg.scores_dtype, chunk=cfg.query_chunk)
    y = constrained(y, 'batch', 'length', 'heads', 'kv')
    y = edited_inside(inside, 'heads', y.reshape(*y.shape[:2], -1), x)
    return constrained(
      edited_inside(inside, 'attention', self.out(y), y), 'batch', 'length', 'embed'
    )


def _in_kernel(
  q: Array,
  groups: Sequence[KeysValues],
  mask: Array,
  bias: Array,
  keep: Array | None,
  cfg: T5Config,
) -> Array:
  """`attend` by the kernel that `cfg` names; imported here, since Pallas takes half a second."""
  if cfg.attention == 'fused':
    from prompt_jax.models.attention.fused import attend_fused

    return attend_fused(q, groups, mask, bias, keep, scores_dtype=cfg.scores_dtype)
  from prompt_jax.models.attention.cudnn import attend_cudnn

  return attend_cudnn(q, groups, mask, bias, keep)


class Mlp(nn.Module):
  """wo(act_0(wi_0 x) * act_1(wi_1 x)), or wo(relu(wi x)) in T5 1.0."""

  cfg: T5Config
  deterministic: bool

  @nn.compact
  def __call__(self, x: Array, inside: Inside = ()) -> Array:
    names = self.cfg.mlp_activations
    h = jnp.ones((), x.dtype)
    for i, activation in enumerate(names):
      name = 'wi' if len(names) == 1 else f'wi_{i}'
      y = constrained(Dense(self.cfg.mlp_dim, name=name)(x), 'batch', 'length', 'mlp')
      h = h * _ACTIVATIONS[activation](checkpoint_name(y, 'mlp_input'))
    h = edited_inside(inside, 'mlp_hidden', h, x)
    dropout = nn.Dropout(self.cfg.dropout_rate, broadcast_dims=(-2,))
    h = Dense(self.cfg.emb_dim, name='wo')(dropout(h, deterministic=self.deterministic))
    return constrained(edited_inside(inside, 'mlp', h, x), 'batch', 'length', 'embed')
