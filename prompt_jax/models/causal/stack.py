"""The layers of a decoder-only model, for an input that is read once and a target behind it.

Keys are kept rotated (RoPE), so what was read of the input is of use to every target. A key that a
prompt injects is not rotated. Letters besides the usual ones: K heads of keys and values.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.ad_checkpoint import checkpoint_name

from prompt_jax.injections import Injection, Inside, Layout, visible_keys
from prompt_jax.models.attention.attend import KeysValues, attend, constrained
from prompt_jax.models.causal.config import CausalConfig
from prompt_jax.models.t5.layers import LogitsDense, Matrix, SelfCache, edited_inside, matmul
from prompt_jax.models.t5.stack import edited, injected_group, kv_length, scanned

Array = jax.Array
_ACTIVATIONS = {'silu': nn.silu, 'gelu': nn.gelu}
_kernel_init = nn.initializers.variance_scaling(1.0, 'fan_in', 'truncated_normal')


@struct.dataclass
class View:
  """What some positions see, the same in every layer.

  Attributes:
    layout: of the positions.
    positions: int32[B, Q] where they stand in the text.
    keys: int32[B, S] where the keys stand; those that a prompt injects at -1.
    mask: bool[B, 1, Q, S] which keys they see, windows aside.
    injected: how many keys a prompt injects: the first ones, which no window hides (static).
    late: bool[B|1, 1, 1, S] keys that are seen from `Injection.first_layer` on; None where all are
      from the first.
    keeps: whether the layers give back their keys and values (static).
  """

  layout: Layout
  positions: Array
  keys: Array
  mask: Array
  injected: int = struct.field(pytree_node=False)
  late: Array | None = None
  keeps: bool = struct.field(pytree_node=False, default=False)

  def mask_in(self, window: Array | None, begun: Array | None) -> Array:
    """The mask of one layer.

    Args:
      window: int32[] see `CausalConfig.windows`; None where no layer has one.
      begun: bool[] whether the keys of `late` are seen in it; None where all are.
    """
    mask = self.mask
    if window is not None:
      far = self.positions[:, None, :, None] - self.keys[:, None, None, :]
      always = (jnp.arange(self.keys.shape[1]) < self.injected)[None, None, None]
      mask = mask & (always | (window == 0) | (far < window))
    if begun is not None and self.late is not None:
      mask = mask & (begun | ~self.late)
    return mask


@struct.dataclass
class ReadInput:
  """What a target needs of the input.

  Attributes:
    keys_values: [L, B, S, K, D] each, of every layer.
    layout: of the S positions.
    positions: int32[B, S] where they stand.
    count: int32[B, 1] how many of them are there, after which the target stands.
  """

  keys_values: KeysValues
  layout: Layout
  positions: Array
  count: Array


def frequencies(cfg: CausalConfig) -> np.ndarray:
  """float32[L, D / 2] radians a position, of each pair of numbers that is rotated.

  theta^(-2i/D) (RoPE, Su et al. 2021, arXiv:2104.09864, section 3.2); with `rope_factors` the slow
  ones are slower (LLaMA 3.1).
  """
  powers = np.arange(0, cfg.head_dim, 2, dtype=np.float32) / cfg.head_dim
  found = 1 / np.asarray(cfg.rope_theta, np.float32)[:, None] ** powers
  if cfg.rope_factors is None:
    return found
  factor, low, high, length = map(np.float32, cfg.rope_factors)
  turns = length * found / np.float32(2 * np.pi)
  share = np.clip((turns - low) / (high - low), 0, 1)
  return found * share + found / factor * (1 - share)


def rotated(x: Array, positions: Array, of_layer: Array) -> Array:
  """[B, S, N, D], int32[B, S], float32[D / 2] -> [B, S, N, D]: number i turns with i + D / 2."""
  angle = positions[:, :, None, None].astype(jnp.float32) * of_layer[None, None, None]
  cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
  a, b = jnp.split(x, 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Norm(nn.Module):
  """x / sqrt(mean(x^2) + eps) * (offset + scale), computed in float32."""

  cfg: CausalConfig

  @nn.compact
  def __call__(self, x: Array) -> Array:
    start = nn.initializers.constant(1 - self.cfg.norm_offset)
    scale = self.param('scale', start, (x.shape[-1],)).astype(jnp.float32)
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + self.cfg.norm_eps)
    scale = jnp.expand_dims(scale + self.cfg.norm_offset, tuple(range(x.ndim - 1)))
    return (y * scale).astype(x.dtype)


class Linear(nn.Module):
  """x @ kernel, plus a bias where there is one."""

  features: int
  bias: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel: Matrix = self.param('kernel', _kernel_init, (x.shape[-1], self.features))
    y = matmul(x, kernel, x.dtype)
    if not self.bias:
      return y
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    return y + bias.astype(x.dtype)[None, None]


class Attention(nn.Module):
  """Grouped-query attention with rotated queries and keys."""

  cfg: CausalConfig

  def setup(self):
    cfg = self.cfg
    inputs = cfg.biases != 'none'
    self.query = Linear(cfg.num_heads * cfg.head_dim, inputs)
    self.key = Linear(cfg.num_kv_heads * cfg.head_dim, inputs)
    self.value = Linear(cfg.num_kv_heads * cfg.head_dim, inputs)
    self.out = Linear(cfg.emb_dim, cfg.biases == 'all')
    if cfg.qk_norm:
      self.query_norm, self.key_norm = Norm(cfg), Norm(cfg)

  def _heads(self, x: Array, count: int, name: str) -> Array:
    # Named before the split: a last axis of D = 64 would be padded to 128 in a TPU's memory.
    x = checkpoint_name(x, 'projected').reshape(*x.shape[:-1], count, self.cfg.head_dim)
    return constrained(x, 'batch', 'length', name, 'kv')

  def keys_values(self, x: Array, positions: Array, of_layer: Array, inside: Inside) -> KeysValues:
    """[B, S, H] normed -> keys, rotated, and values, each [B, S, K, D]."""
    heads = self.cfg.num_kv_heads
    k = self._heads(edited_inside(inside, 'key', self.key(x), x), heads, 'kv_heads')
    v = self._heads(edited_inside(inside, 'value', self.value(x), x), heads, 'kv_heads')
    k = self.key_norm(k) if self.cfg.qk_norm else k
    return rotated(k, positions, of_layer), v

  def __call__(
    self,
    x: Array,
    groups: tuple[KeysValues, ...],
    mask: Array,
    positions: Array,
    of_layer: Array,
    inside: Inside,
  ) -> Array:
    """[B, Q, H] normed -> [B, Q, H], from all keys [B|1, S_i, K, D] of all groups under a mask."""
    cfg = self.cfg
    q = edited_inside(inside, 'query', self.query(x), x)
    q = self._heads(q, cfg.num_heads, 'heads')
    q = self.query_norm(q) if cfg.qk_norm else q
    scale = cfg.head_dim**-0.5 if cfg.query_scale is None else cfg.query_scale
    q = rotated(q, positions, of_layer) * jnp.asarray(scale, q.dtype)
    # Queries that read one key head stand side by side, so that no key is repeated for them.
    b, length, share = *q.shape[:2], cfg.num_heads // cfg.num_kv_heads
    q = q.reshape(b, length, cfg.num_kv_heads, share, cfg.head_dim).swapaxes(2, 3)
    y = attend(
      q.reshape(b, length * share, cfg.num_kv_heads, cfg.head_dim),
      groups,
      jnp.repeat(mask, share, axis=2),
      None,
      None,
      scores_dtype=cfg.scores_dtype,
      chunk=None if cfg.query_chunk is None else cfg.query_chunk * share,
      softcap=cfg.attention_softcap,
    )
    y = y.reshape(b, length, share, cfg.num_kv_heads, cfg.head_dim).swapaxes(2, 3)
    y = edited_inside(inside, 'heads', y.reshape(b, length, -1), x)
    y = edited_inside(inside, 'attention', self.out(y), y)
    return constrained(y, 'batch', 'length', 'embed')


class Mlp(nn.Module):
  """wo(act(wi_0 x) * wi_1 x)."""

  cfg: CausalConfig

  @nn.compact
  def __call__(self, x: Array, inside: Inside) -> Array:
    wide = lambda name: checkpoint_name(
      constrained(Linear(self.cfg.mlp_dim, name=name)(x), 'batch', 'length', 'mlp'), 'mlp_input'
    )
    h = _ACTIVATIONS[self.cfg.activation](wide('wi_0')) * wide('wi_1')
    h = edited_inside(inside, 'mlp_hidden', h, x)
    y = edited_inside(inside, 'mlp', Linear(self.cfg.emb_dim, name='wo')(h), x)
    return constrained(y, 'batch', 'length', 'embed')


class Layer(nn.Module):
  """One layer of the stack."""

  cfg: CausalConfig

  @nn.compact
  def __call__(self, carry, view, kv, edit, inside, of_layer, window, begun, earlier):
    """Scanned: all but the first two arguments are this layer's own.

    `carry` is (x, SelfCache | None). `earlier` holds the keys and values of the input, for a
    target; the layer gives back its own if `view.keeps`.
    """
    cfg, (x, cache) = self.cfg, carry
    behind = lambda name, y: Norm(cfg, name=name)(y) if cfg.post_norms else y
    x = edited(edit, x, view.layout)
    y = Norm(cfg, name='pre_self_attention_layer_norm')(x)
    attention = Attention(cfg, name='self_attention')
    own = attention.keys_values(y, view.positions, of_layer, inside)
    made = own if view.keeps else None
    if cache is not None:
      cache, own = cache.append(own)
    groups = (*injected_group(kv), *(() if earlier is None else (earlier,)), own)
    mask = view.mask_in(window, begun)
    y = attention(y, groups, mask, view.positions, of_layer, inside)
    x = checkpoint_name(x + behind('post_self_attention_layer_norm', y), 'residual')
    y = Mlp(cfg, name='mlp')(Norm(cfg, name='pre_mlp_layer_norm')(x), inside)
    return (x + behind('post_mlp_layer_norm', y), cache), made


class Stack(nn.Module):
  """All layers, and the norm behind them."""

  cfg: CausalConfig

  def setup(self):
    axes = (nn.broadcast, *(0,) * 7)
    self.layers = scanned(Layer, self.cfg, self.cfg.num_layers, axes)(self.cfg)
    self.decoder_norm = Norm(self.cfg)
    if not self.cfg.tied_logits:
      self.logits_dense = LogitsDense(self.cfg.vocab_size)

  def __call__(
    self,
    x: Array,
    view: View,
    injection: Injection,
    earlier: KeysValues | None = None,
    cache: SelfCache | None = None,
    skip: int = 0,
  ) -> tuple[Array, SelfCache | None, KeysValues | None]:
    """Runs the layers on x [B, Q, H].

    Args:
      x: embeddings.
      view: what its positions see.
      injection: what is added.
      earlier: [L, B, S, K, D] keys and values of the input.
      cache: keys and values of earlier positions of the target.
      skip: leading positions whose output nobody needs.

    Returns:
      [B, Q - skip, H] normed states; the cache; [L, B, Q, K, D] keys and values if `view.keeps`.
    """
    cfg, first = self.cfg, injection.first_layer
    (x, cache), made = self.layers(
      (x, cache),
      view,
      injection.kv,
      injection.hidden,
      injection.inside,
      jnp.asarray(frequencies(cfg)),
      jnp.asarray(cfg.windows, jnp.int32) if any(cfg.windows) else None,
      jnp.arange(cfg.num_layers) >= first if first else None,
      earlier,
    )
    return self.decoder_norm(x[:, skip:]), cache, made

  def logits(self, x: Array) -> Array:
    """[B, Q, H] normed states -> float32[B, Q, V] of an output layer of its own."""
    return self.logits_dense(x)


def input_view(layout: Layout, injection: Injection) -> tuple[View, Array]:
  """What the positions of an input see, and int32[B, 1] how many there are."""
  there = layout.mask.astype(jnp.int32)
  extra = kv_length(injection)
  positions = jnp.maximum(jnp.cumsum(there, axis=1) - 1, 0) + first_position(injection)
  mask = (positions[:, :, None] >= positions[:, None, :]) & layout.mask[:, None, :]
  is_prompt = _is_prompt(layout)
  if not injection.sees_input:
    mask = mask & (is_prompt[:, None, :] | ~is_prompt[:, :, None])
  view = View(
    layout,
    positions,
    jnp.pad(positions, ((0, 0), (extra, 0)), constant_values=-1),
    _with_injected(mask[:, None], injection),
    extra,
    _late(is_prompt, injection, 0),
    keeps=True,
  )
  return view, jnp.sum(there, axis=1, keepdims=True)


def target_view(
  length: int, start: Array | int, room: int, read: ReadInput, injection: Injection
) -> View:
  """What `length` positions of a target see, the first of them its position `start` of `room`."""
  extra, first = kv_length(injection), first_position(injection)
  own = start + jnp.arange(length, dtype=jnp.int32)[None]
  every = jnp.arange(room, dtype=jnp.int32)[None]
  rows = read.count.shape[0]
  causal = jnp.broadcast_to(own[:, :, None] >= every[:, None, :], (rows, length, room))
  seen = jnp.broadcast_to(read.layout.mask[:, None], (rows, length, read.positions.shape[1]))
  keys = jnp.concatenate([read.positions, read.count + first + every], axis=1)
  return View(
    Layout(mask=jnp.ones((rows, length), bool)),
    read.count + first + own,
    jnp.pad(keys, ((0, 0), (extra, 0)), constant_values=-1),
    _with_injected(jnp.concatenate([seen, causal], axis=2)[:, None], injection),
    extra,
    _late(_is_prompt(read.layout), injection, room),
  )


def first_position(injection: Injection) -> Array | int:
  """Where the text begins, int32[B, 1] where examples differ: behind injected keys that are
  "shifted", as PEFT counts them."""
  if injection.kv_bias != 'shifted':
    return 0
  return kv_length(injection) if injection.kv_lengths is None else injection.kv_lengths[:, None]


def _is_prompt(layout: Layout) -> Array:
  """bool[B, S] which positions are prompt rows."""
  if layout.slot is None:
    return jnp.zeros(layout.mask.shape, bool)
  return jnp.broadcast_to(layout.slot >= 0, layout.mask.shape)


def _late(is_prompt: Array, injection: Injection, behind: int) -> Array | None:
  """`View.late`: injected keys, prompt rows, and so many keys behind them, which are not late."""
  if not injection.first_layer:
    return None
  keys = jnp.pad(is_prompt, ((0, 0), (kv_length(injection), 0)), constant_values=True)
  return jnp.pad(keys, ((0, 0), (0, behind)))[:, None, None]


def _with_injected(mask: Array, injection: Injection) -> Array:
  """A mask [B, 1, Q, S] with the injected keys in front, which everyone sees that there are."""
  own = visible_keys(injection)
  if own is None:
    own = jnp.ones((1, kv_length(injection)), bool)
  own = jnp.broadcast_to(own[:, None, None], (mask.shape[0], 1, mask.shape[2], own.shape[1]))
  return jnp.concatenate([own, mask], axis=-1)
