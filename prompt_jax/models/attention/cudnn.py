"""Self-attention as cuDNN's kernels for NVIDIA GPUs: logits and weights are never in memory.

`jax.nn.dot_product_attention(..., implementation='cudnn')` calls the same kernels, but (JAX 0.10)
always has them make the gradient of the bias too, whoever wants it: cuDNN then keeps the gradients
of all logits, [B, N, Q, K], in its workspace, which is what a kernel is there to save. So the two
rules behind that function are called here, without that gradient. They map (`jax.vmap`) only where
everything is mapped, and are mapped here by making a longer batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as rules

from prompt_jax.models.attention.attend import (
  KeysValues,
  all_keys_values,
  on_mesh,
  refuse_bias_gradient,
)

Array = jax.Array
# A bias that hides a key: JAX's for bfloat16, which works around differences of larger ones.
_HIDDEN = -float(2 << 40)
_BIAS = 3  # its place among what a kernel is given
_EVEN = 2  # cuDNN takes a bias only of lengths that this divides


def attend_cudnn(
  q: Array,
  groups: Sequence[KeysValues],
  mask: Array,
  bias: Array,
  keep: Array | None,
) -> Array:
  """`models.attention.attend.attend` as a kernel; softmax in float32, the bias in the dtype of q.

  What a query gets that sees no key at all is finite, and of no use: such are padding.

  Args:
    q: bfloat16[B, Q, N, D].
    groups: as `attend`.
    mask: bool[B|1, 1, Q|1, K]; one for all queries hides only keys at the end (`batch.Batch`).
    bias: [B|1, N, Q, K]; it has no gradient.
    keep: [B, N, 1, K] dropout's factor on the weights.

  Returns:
    [B, Q, N, D].

  Raises:
    UserError: the bias is differentiated.
  """
  arrays = (q, *all_keys_values(q, groups, keep), bias, mask[:, 0])
  axes = (('batch', None, 'heads', None),) * 3
  return on_mesh(_on_device, arrays, (*axes, ('batch', 'heads', None, None), ('batch', None, None)))


def _on_device(q: Array, k: Array, v: Array, bias: Array, mask: Array) -> Array:
  """The part of one device: the mask as a number of keys, or in the bias; lengths made even."""
  rows, queries, keys = q.shape[0], q.shape[1], k.shape[1]
  if mask.shape[1] == 1:  # padding, which cuDNN does not even read
    lengths = jnp.maximum(jnp.sum(mask[:, 0], axis=1, dtype=jnp.int32), 1)
  else:
    lengths = jnp.full(1, keys, jnp.int32)
    bias = jnp.where(mask[:, None], bias, _HIDDEN)
  lengths = jnp.broadcast_to(lengths, (rows,))
  q, k, v = (_even(x, (1,)) for x in (q, k, v))
  return _attention(q, k, v, _even(bias.astype(q.dtype), (2, 3)), lengths)[:, :queries]


def _even(x: Array, axes: Sequence[int]) -> Array:
  """Zeros after the end of axes of odd length."""
  padding = [(0, -n % _EVEN if axis in axes else 0) for axis, n in enumerate(x.shape)]
  return jnp.pad(x, padding) if any(after for _, after in padding) else x


def _as_longer_batch(kernel: Callable[..., Any]) -> Callable[..., Any]:
  """A kernel of (q, k, v, bias, lengths, ...) whose mapped axis becomes part of the batch.

  A bias that neither the mapped axis nor the batch changes stays one.
  """

  @jax.custom_batching.custom_vmap
  def call(*xs: Array) -> Any:
    return kernel(*xs)

  @call.def_vmap
  def fold(size: int, mapped: Sequence[bool], *xs: Array) -> tuple[Any, Any]:
    rows = xs[0].shape[1 if mapped[0] else 0]

    def folded(index: int, x: Array) -> Array:
      if index == _BIAS and not mapped[index] and x.shape[0] == 1:
        return x
      x = x if mapped[index] else x[None]
      return jnp.broadcast_to(x, (size, rows, *x.shape[2:])).reshape(-1, *x.shape[2:])

    done = call(*map(folded, range(len(xs)), xs))
    done = jax.tree.map(lambda y: y.reshape(size, rows, *y.shape[1:]), done)
    return done, jax.tree.map(lambda _: True, done)

  return call


@jax.custom_vjp
def _attention(q: Array, k: Array, v: Array, bias: Array, lengths: Array) -> Array:
  """[B, Q, N, D] of q; k and v [B, K, N, D], bias [B|1, N, Q, K], int32[B] keys that are seen."""
  return _as_longer_batch(_forward)(q, k, v, bias, lengths)[0]


def _attention_forward(*inputs: Any) -> tuple[Array, tuple[Array, ...]]:
  if inputs[3].perturbed:
    raise refuse_bias_gradient('cudnn')
  arrays = tuple(x.value for x in inputs)
  y, normaliser = _as_longer_batch(_forward)(*arrays)
  return y, (*arrays, normaliser, y)


def _attention_backward(arrays: tuple[Array, ...], dy: Any) -> tuple[Any, ...]:
  if isinstance(dy, jax.custom_derivatives.SymbolicZero):
    return (None,) * 5
  return *_as_longer_batch(_backward)(*arrays, dy), None, None


_attention.defvjp(_attention_forward, _attention_backward, symbolic_zeros=True)


def _forward(q: Array, k: Array, v: Array, bias: Array, lengths: Array) -> tuple[Array, Array]:
  """The output, and float32[B, N, Q] logarithms of the sums of each softmax."""
  operands = _operands(q, k, v, bias, lengths)
  y, kept = rules._dot_product_attention_fwd_rule(*operands, *_options())
  return y, kept[-2]


def _backward(
  q: Array, k: Array, v: Array, bias: Array, lengths: Array, normaliser: Array, y: Array, dy: Array
) -> tuple[Array, ...]:
  """The gradients of q, k and v; given what `_forward` was given and returned."""
  kept = (*_operands(q, k, v, bias, lengths), normaliser, y)
  return tuple(rules._dot_product_attention_bwd_rule(*(*_options(), kept, dy))[:3])


def _operands(q: Array, k: Array, v: Array, bias: Array, lengths: Array) -> tuple[Array, ...]:
  """With the numbers of queries; offsets and page tables are of forms that are not used."""
  unused = jnp.zeros(0, q.dtype)
  queries = jnp.full(lengths.shape, q.shape[1], jnp.int32)
  return (q, k, v, bias, queries, lengths, *(unused,) * 4)


def _options() -> tuple[Any, ...]:
  """T5's scale; no dropout of the kernel's own; a bias, and no gradient of it; key lengths."""
  scale, seed, dropout, window = 1.0, 42, 0.0, None
  layout, version = rules.AttentionLayout.BTNH.value, rules.check_cudnn_version()
  gradients, mask = (True, False), rules.MaskType.PADDING
  return (scale, seed, dropout, gradients, mask, layout, window, version, False)
