"""What each position of the stacks sees: masks, and the buckets of relative positions."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from prompt_jax.injections import Injection, Layout, prefix_length, visible_keys
from prompt_jax.models.t5 import layers
from prompt_jax.models.t5.config import T5Config

Array = jax.Array


@struct.dataclass
class View:
  """What the rows of one stream see, the same in every layer.

  Attributes:
    layout: of the rows.
    mask: bool[B|1, 1, Q|1, K] which keys they attend to.
    buckets: int32[B|1, Q, K] or int32[Q, K] of relative positions.
    bias: float32[B|1, N, Q, K] of those buckets; None where every layer has a table of its own.
    late: bool[B|1, 1, 1, K] keys that are seen from `Injection.first_layer` on; None where all are
      from the first.
  """

  layout: Layout
  mask: Array
  buckets: Array
  bias: Array | None = None
  late: Array | None = None

  def mask_in(self, begun: Array | None) -> Array:
    """The mask of one layer; `begun` bool[] is whether the keys of `late` are seen in it."""
    if begun is None or self.late is None:
      return self.mask
    return self.mask & (begun | ~self.late)


def kv_length(injection: Injection) -> int:
  return 0 if injection.kv is None else injection.kv.shape[3]


def positions(layout: Layout, length: int) -> Array:
  """int32[S], or int32[B|1, S] where the layout has positions."""
  if layout.positions is not None:
    return layout.positions
  return jnp.arange(length, dtype=jnp.int32)


def with_injected(own: Array, injection: Injection) -> tuple[Array, Array | None]:
  """Key positions with the injected keys at -P..-1, and which of them have no bias."""
  extra = kv_length(injection)
  if not extra:
    return own, None
  front = jnp.broadcast_to(jnp.arange(-extra, 0, dtype=jnp.int32), (*own.shape[:-1], extra))
  key = jnp.concatenate([front, own], axis=-1)
  return key, (key < 0 if injection.kv_bias == 'zero' else None)


def encoder_view(layout: Layout, injection: Injection, cfg: T5Config) -> View:
  """What the rows of a layout see: injected keys, an input-independent prefix, and themselves."""
  own, extra = positions(layout, layout.mask.shape[1]), kv_length(injection)
  mask = layout.mask[:, None, None, :]
  if layout.segments is not None:
    mask = mask & (layout.segments[:, None, :, None] == layout.segments[:, None, None, :])
  if layout.slot is not None and not injection.sees_input:
    is_prompt = layout.slot >= 0
    mask = mask & (is_prompt[:, None, None, :] | ~is_prompt[:, None, :, None])
  buckets_of = functools.partial(layers.relative_buckets, bidirectional=True, cfg=cfg)
  buckets = buckets_of(own, *with_injected(own, injection))
  beside = 0
  if layout.from_prompt is not None:
    beside = prefix_length(injection)
    prompt = buckets_of(layout.from_prompt, jnp.arange(beside, dtype=jnp.int32)[None], None)
    parts = [buckets[..., :extra], prompt, buckets[..., extra:]]
    buckets = jnp.concatenate(parts, axis=-1)
  view = View(layout, _mask_with_injected(mask, injection, beside), buckets)
  if not injection.first_layer:
    return view
  late = layout.mask & False if layout.slot is None else layout.mask & (layout.slot >= 0)
  return dataclasses.replace(view, late=_with_visible(late[:, None, None], extra + beside))


def _with_visible(mask: Array, keys: int) -> Array:
  """A mask [B, 1, Q, K] with so many keys in front that everyone sees."""
  return jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (keys, 0)), constant_values=True)


def _mask_with_injected(mask: Array, injection: Injection, beside: int) -> Array:
  """A mask [B, 1, Q, K] with the injected keys in front, and behind them `beside` that all see."""
  mask = _with_visible(mask, beside)
  own = visible_keys(injection)
  if own is None:
    return _with_visible(mask, kv_length(injection))
  own = jnp.broadcast_to(own[:, None, None], (own.shape[0], 1, mask.shape[2], own.shape[1]))
  return jnp.concatenate([own, jnp.broadcast_to(mask, (own.shape[0], *mask.shape[1:]))], axis=-1)


def visible_rows(layout: Layout, injection: Injection) -> Array | None:
  """bool[B, K] which keys of a decoder are more than room; None for all."""
  if injection.lengths is None and injection.kv_lengths is None:
    return None
  return _mask_with_injected(layout.mask[:, None, None], injection, 0)[:, 0, 0]


def causal_mask(
  query: Array, key: Array, layout: Layout, extra: int, visible: Array | None
) -> Array:
  """bool[B|1, 1, Q, K]: a query sees injected keys and the keys up to itself."""
  mask = key[..., None, :] <= query[..., :, None]
  mask = mask[None, None] if mask.ndim == 2 else mask[:, None]
  if visible is not None:
    mask = mask & visible[:, None, None]
  if layout.segments is None:
    return mask
  same = layout.segments[:, :, None] == layout.segments[:, None, :]
  return mask & _with_visible(same[:, None], extra)


def cross_mask(layout: Layout, states: Layout, cross: Injection, others: int) -> Array:
  """bool[B, 1, Q|1, K]: a target position sees the encoder positions of its own example, the keys
  that are injected, and `others` that belong to no example."""
  mask = states.mask[:, None, None, :]
  if states.segments is not None:
    if layout.segments is None:
      raise ValueError(
        'Packed inputs need decoder_segment_ids: which targets belong to which input'
      )
    mask = mask & (layout.segments[:, None, :, None] == states.segments[:, None, None, :])
  return _mask_with_injected(mask, cross, others)
