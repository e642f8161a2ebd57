"""Encoder and decoder: identical layers, their parameters stacked and scanned over."""

import dataclasses
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
)
from prompt_jax.models.t5 import layers
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.views import (
  causal_mask,
  cross_mask,
  encoder_view,
  kv_length,
  positions,
  visible_rows,
  with_injected,
)

Array = jax.Array


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

  def append(self, kv: layers.KeysValues) -> tuple['SelfCache', layers.KeysValues]:
    """Writes this layer's new keys and values; returns all of the layer's."""
    at = (self.layer, 0, self.start, 0, 0)
    keys = jax.lax.dynamic_update_slice(self.keys, kv[0][None].astype(self.keys.dtype), at)
    values = jax.lax.dynamic_update_slice(self.values, kv[1][None].astype(self.values.dtype), at)
    pick = lambda x: jax.lax.dynamic_index_in_dim(x, self.layer, keepdims=False)
    cache = dataclasses.replace(self, keys=keys, values=values, layer=self.layer + 1)
    return cache, (pick(keys), pick(values))


def injected_group(kv: Array | None) -> tuple[layers.KeysValues, ...]:
  """One layer's injected [2, B|1, P, N, D] as a group of keys and values, if there are any."""
  return () if kv is None else ((kv[0], kv[1]),)


def _edited(edit: LayerEdit | None, x: Array, layout: Layout) -> Array:
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
      x = _edited(edit, x, view.layout)
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

    `carry` is (x, SelfCache | None). `own_parts` is (kv, hidden, inside) of the decoder's
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
    x = _edited(edit, x, layout)
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


def _scanned(layer: type[nn.Module], cfg: T5Config, length: int, in_axes: Any) -> Any:
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
    stack = _scanned(EncoderLayer, cfg, cfg.num_encoder_layers, (nn.broadcast, 0, 0, 0, 0))
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
    cache: SelfCache | None = None,
    cached_cross: tuple[layers.KeysValues, ...] | None = None,
  ) -> tuple[Array, SelfCache | None, tuple[layers.KeysValues, ...] | None]:
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
      float32[B, Q - skip, V] logits ([B, Q - skip, H] final states where logits are tied), the
      cache, and with `cache` the cross-attention keys and values.
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
    stack = _scanned(DecoderLayer, cfg, cfg.num_decoder_layers, axes)
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
    x = dropout(x, deterministic=deterministic)
    if not cfg.tied_logits:
      x = layers.LogitsDense(cfg.vocab_size, name='logits_dense')(x)
    return x, cache, made if cached_cross is None else cached_cross
