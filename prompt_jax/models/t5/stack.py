"""Encoder and decoder: identical layers, their parameters stacked and scanned over."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from prompt_jax.injections import (
  Injection,
  LayerEdit,
  Layout,
  prefix_layout,
  prefix_length,
  visible_keys,
)
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


def injected_group(kv: Array | None) -> tuple[layers.KeysValues, ...]:
  """One layer's injected [2, B|1, P, N, D] as a group of keys and values, if there are any."""
  return () if kv is None else ((kv[0], kv[1]),)


def edited(edit: LayerEdit | None, x: Array, layout: Layout) -> Array:
  return x if edit is None else edit.fn(edit.theta, x, layout).astype(x.dtype)


class EncoderLayer(nn.Module):
  cfg: T5Config
  deterministic: bool

  @nn.compact
  def __call__(self, streams, views, kv, edit, inside, begun):
    """One layer. Scanned: the last four arguments hold this layer's injections.

    Each of `streams` sees the injected keys, the streams before it, and itself.
    """
    dropout = nn.Dropout(self.cfg.dropout_rate, broadcast_dims=(-2,))
    drop = lambda y: dropout(y, deterministic=self.deterministic)
    if self.cfg.relpos_per_layer:
      table = layers.RelativeBias(self.cfg, name='relpos_bias')
    norm = layers.RMSNorm(name='pre_attention_layer_norm')
    attention = layers.Attention(self.cfg, self.deterministic, may_fuse=True, name='attention')
    mlp_norm = layers.RMSNorm(name='pre_mlp_layer_norm')
    mlp = layers.Mlp(self.cfg, self.deterministic, name='mlp')

    def through(x, view, others):
      """A stream that sees `others` and itself; also its own keys and values."""
      bias = table(view.buckets) if self.cfg.relpos_per_layer else view.bias
      x = edited(edit, x, view.layout)
      y = norm(x)
      own = attention.keys_values(y, inside)
      x = x + drop(attention(y, (*others, own), view.mask_in(begun), bias, inside))
      x = checkpoint_name(x, 'residual')
      return x + drop(mlp(mlp_norm(x), inside)), own

    others, done = injected_group(kv), []
    for x, view in zip(streams, views, strict=True):
      x, own = through(x, view, others)
      others = (*others, own)
      done.append(x)
    return tuple(done), None


class DecoderLayer(nn.Module):
  cfg: T5Config
  deterministic: bool

  @nn.compact
  def __call__(self, carry, states, layout, masks, buckets, bias, own_parts, cross_parts, cached):
    """One layer. Scanned: the last three arguments are this layer's own.

    `carry` is (x, layers.SelfCache | None). `own_parts` is (kv, hidden, inside) of the decoder's
    injection, `cross_parts` (kv, inside) of that of cross attention. `cached` holds the groups of
    cross-attention keys and values computed before; otherwise they are made from the encoder's
    `states`, a group of each, and returned if there is a cache.
    """
    x, cache = carry
    (kv, edit, inside), (cross_kv, inside_cross) = own_parts, cross_parts
    dropout = nn.Dropout(self.cfg.dropout_rate, broadcast_dims=(-2,))
    drop = lambda y: dropout(y, deterministic=self.deterministic)
    self_mask, cross_mask = masks
    if self.cfg.relpos_per_layer:
      bias = layers.RelativeBias(self.cfg, name='relpos_bias')(buckets)
    x = edited(edit, x, layout)
    y = layers.RMSNorm(name='pre_self_attention_layer_norm')(x)
    attention = layers.Attention(self.cfg, self.deterministic, name='self_attention')
    own = attention.keys_values(y, inside)
    if cache is None:
      groups = (*injected_group(kv), own)
    else:
      cache, own = cache.append(own)
      groups = (own,)
    x = x + drop(attention(y, groups, self_mask, bias, inside))
    x = checkpoint_name(x, 'residual')
    y = layers.RMSNorm(name='pre_cross_attention_layer_norm')(x)
    attention = layers.Attention(self.cfg, self.deterministic, name='encoder_decoder_attention')
    made = None  # given back only to decoding step by step, and only once
    if cached is None:
      made_of = (attention.keys_values(each, inside_cross) for each in states)
      cached = (*injected_group(cross_kv), *made_of)
      made = None if cache is None else cached
    x = x + drop(attention(y, cached, cross_mask, None, inside_cross))
    x = checkpoint_name(x, 'residual')
    y = layers.RMSNorm(name='pre_mlp_layer_norm')(x)
    x = x + drop(layers.Mlp(self.cfg, self.deterministic, name='mlp')(y, inside))
    return (x, cache), made


def scanned(layer: type[nn.Module], cfg: Any, length: int, in_axes: Any) -> Any:
  """`layer` applied `length` times; parameters and per-layer arguments have a leading L axis.

  For the backward pass a layer keeps only `layers.KEPT`, half of what it would keep otherwise, or
  nothing (`T5Config.remat`).
  """
  kept = layers.KEPT if cfg.remat == 'cheap' else ()
  policy = jax.checkpoint_policies.save_only_these_names(*kept)
  # Two loops, forward and backward, are never merged; without loops XLA would undo the saving.
  layer = nn.remat(layer, policy=policy, prevent_cse=cfg.unroll >= length)
  return nn.scan(
    layer,
    variable_axes={'params': 0},
    split_rngs={'params': True, 'dropout': True},
    in_axes=in_axes,
    length=length,
    unroll=min(cfg.unroll, length),
  )


class Encoder(nn.Module):
  cfg: T5Config

  @nn.compact
  def __call__(
    self, x: Array, layout: Layout, injection: Injection, deterministic: bool
  ) -> tuple[Array, ...]:
    """Runs the stack on x, and before it on an input-independent prefix.

    Args:
      x: [B, S, H] embeddings as `attach.attach` gives them.
      layout: of x.
      injection: what is added.
      deterministic: no dropout.

    Returns:
      [B, S, H] states of x; in front of them [1, P, H] of a prefix that is not among x.
    """
    cfg, streams, layouts = self.cfg, [x], [layout]
    if layout.from_prompt is not None and injection.prefix is not None:
      streams = [injection.prefix.astype(x.dtype), x]
      layouts = [prefix_layout(injection), layout]
    views = [encoder_view(each, injection, cfg) for each in layouts]
    if not cfg.relpos_per_layer:
      table = layers.RelativeBias(cfg, name='relpos_bias')
      views = [dataclasses.replace(view, bias=table(view.buckets)) for view in views]
    dropout = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))
    drop = lambda y: dropout(y, deterministic=deterministic)
    stack = scanned(EncoderLayer, cfg, cfg.num_encoder_layers, (nn.broadcast, 0, 0, 0, 0))
    first = injection.first_layer
    begun = jnp.arange(cfg.num_encoder_layers) >= first if first else None
    done, _ = stack(cfg, deterministic, name='layers')(
      tuple(map(drop, streams)),
      tuple(views),
      injection.kv,
      injection.hidden,
      injection.inside,
      begun,
    )
    norm = layers.RMSNorm(name='encoder_norm')
    return tuple(drop(norm(x)) for x in done)


class Decoder(nn.Module):
  cfg: T5Config

  @nn.compact
  def __call__(
    self,
    x: Array,
    layout: Layout,
    states: tuple[Array, ...],
    states_layout: Layout,
    injection: Injection,
    cross: Injection,
    deterministic: bool,
    skip: int = 0,
    cache: layers.SelfCache | None = None,
    cached_cross: tuple[layers.KeysValues, ...] | None = None,
  ) -> tuple[Array, Array, layers.SelfCache | None, tuple[layers.KeysValues, ...] | None]:
    """Runs the stack on x.

    Args:
      x: [B, Q, H] embeddings: a whole row, or with `cache` the next Q positions.
      layout: of x.
      states: of the encoder, as it returns them.
      states_layout: of the last of them.
      injection: what is added to the decoder; with `cache`, its `kv` is already there.
      cross: what is added to cross attention; with `cached_cross`, it is already there.
      deterministic: no dropout.
      skip: leading positions whose output nobody needs (prompt rows).
      cache: keys and values of earlier positions.
      cached_cross: [L, B|1, S, N, D] cross-attention keys and values of an earlier call, a group
        for `cross` and one for each of `states`.

    Returns:
      float32[B, Q - skip, V] logits (where they are tied, the next), [B, Q - skip, H] final states,
      the cache, and with `cache` the cross-attention keys and values.
    """
    cfg, extra = self.cfg, kv_length(injection)
    if cache is None:
      own = positions(layout, x.shape[1])
      key, unbiased = with_injected(own, injection)
    else:
      own = cache.start - extra + jnp.arange(x.shape[1], dtype=jnp.int32)
      key = jnp.arange(cache.keys.shape[2], dtype=jnp.int32) - extra
      unbiased = key < 0 if injection.kv_bias == 'zero' else None
    others = sum(each.shape[1] for each in states[:-1])
    visible = visible_rows(layout, injection) if cache is None else cache.visible
    masks = (
      causal_mask(own, key, layout, extra, visible),
      cross_mask(layout, states_layout, cross, others),
    )
    buckets = layers.relative_buckets(own, key, unbiased, bidirectional=False, cfg=cfg)
    bias = None
    if not cfg.relpos_per_layer:
      bias = layers.RelativeBias(cfg, name='relpos_bias')(buckets)
    dropout = nn.Dropout(cfg.dropout_rate, broadcast_dims=(-2,))
    x = dropout(x, deterministic=deterministic)
    axes = (*(nn.broadcast,) * 5, 0, 0, 0)
    stack = scanned(DecoderLayer, cfg, cfg.num_decoder_layers, axes)
    (x, cache), made = stack(cfg, deterministic, name='layers')(
      (x, cache),
      states,
      layout,
      masks,
      buckets,
      bias,
      (injection.kv, injection.hidden, injection.inside),
      (cross.kv, cross.inside),
      cached_cross,
    )
    x = layers.RMSNorm(name='decoder_norm')(x[:, skip:])
    x = final = dropout(x, deterministic=deterministic)
    if not cfg.tied_logits:
      x = layers.LogitsDense(cfg.vocab_size, name='logits_dense')(x)
    return x, final, cache, made if cached_cross is None else cached_cross


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
  if layout.slot is not None and injection.seen_by != 'all':
    is_prompt = layout.slot >= 0
    seen = is_prompt[:, None, :, None] & (injection.seen_by == 'prompt')
    mask = mask & (~is_prompt[:, None, None, :] | seen)
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
