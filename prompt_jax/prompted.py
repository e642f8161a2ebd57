"""A prompt method on a frozen model, and on a T5: the one place where both meet.

Parameters are {'backbone': the model's own tree, 'prompt': the method's}. Methods of the class are
called through `apply(variables, ..., method='encode')` and so on.
"""

import abc
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from prompt_jax.attach import attach
from prompt_jax.batch import Batch, Features
from prompt_jax.errors import UserError
from prompt_jax.injections import (
  Injection,
  Injections,
  Layout,
  Seen,
  context_for,
  prefix_length,
)
from prompt_jax.models.t5.layers import KeysValues, SelfCache
from prompt_jax.models.t5.stack import kv_length, visible_rows
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompts.base import check_injections, failures_explained, masked_mean

Array = jax.Array


@struct.dataclass
class Encoded:
  """What the decoder needs of one batch of inputs.

  Attributes:
    all_states: what the decoder attends to: [B, S, H] the encoder's states, in front of them
      [1, P, H] those of an input-independent prefix (see `injections.is_input_independent`).
    layout: of the former.
    injections: what the prompt adds; the decoder's part is still to be used.
  """

  all_states: tuple[Array, ...]
  layout: Layout
  injections: Injections

  @property
  def states(self) -> Array:
    """[B, S, H] for the positions of `layout`."""
    return self.all_states[-1]

  @property
  def prefix_apart(self) -> bool:
    """Whether an input-independent prefix was computed once for all rows."""
    return len(self.all_states) > 1


@struct.dataclass
class Cache:
  """The state of cached decoding.

  Attributes:
    own: keys and values of the decoder's self attention, and where the next go.
    cross: [L, B|1, S, N, D] keys and values of cross attention: injected ones, those of an
      input-independent prefix, those of the other states.
  """

  own: SelfCache
  cross: tuple[KeysValues, ...]


def variables_of(params: Any, constants: Any) -> dict[str, Any]:
  """What `apply` takes: the model's parameters, and the method's own constants in their place."""
  return {'params': params, 'constants': {'prompt': constants} if constants else {}}


class Prompted(nn.Module, abc.ABC):
  """A frozen model and the method that prompts it; `prompt=None` is the bare model.

  A method is a module `method(ctx: Context) -> Injections` with `depends_on` (see
  `injections.Context`), which gets only what it declares there.
  """

  backbone: Any
  prompt: nn.Module | None = None

  def is_read(self, tokens: Array) -> Array:
    """bool[B, T] which positions of the input (int32[B, T]) the model reads."""
    return tokens > 0

  @abc.abstractmethod
  def states(self, tokens: Array, embeds: Array) -> Array:
    """[B, T, H] states of the input (int32[B, T] and its embeddings) without a prompt."""

  @abc.abstractmethod
  def encode(
    self,
    encoder_input_tokens: Array,
    features: Features | None = None,
    deterministic: bool = True,
    injections: Injections | None = None,
  ) -> Any:
    """int32[B, T] -> what targets need of them. `injections` replaces what the method would add."""

  @abc.abstractmethod
  def decode(self, encoded: Any, decoder_input_tokens: Array, deterministic: bool = True) -> Array:
    """Teacher forcing: int32[B, U] -> float32[B, U, V]."""

  @abc.abstractmethod
  def start_cache(self, encoded: Any, max_len: int) -> tuple[Array, Cache]:
    """Prefills what stands before the target.

    Args:
      encoded: the inputs.
      max_len: target tokens that may be decoded.

    Returns:
      float32[B, V] logits of the first target token, and the cache.
    """

  @abc.abstractmethod
  def decode_step(self, encoded: Any, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
    """int32[B] the token just decoded -> float32[B, V] logits of the next, and the cache."""

  def __call__(
    self, batch: Batch, deterministic: bool = True, train: bool = False
  ) -> tuple[Array, Array]:
    """Teacher forcing.

    Args:
      batch: B rows.
      deterministic: no dropout in the backbone; otherwise it draws from the stream "dropout".
      train: whether the method trains, which may then draw from the stream "prompt".

    Returns:
      float32[B, U, V] logits of the target positions (in packed rows, of all positions),
      float32[] auxiliary loss; with loss terms float32[B, U], of each target token.
    """
    injections = self.injections(batch.encoder_input_tokens, batch.features, train)
    seen = self._pass(batch, injections, deterministic)
    loss = jnp.asarray(injections.aux_loss, jnp.float32)
    for term in injections.terms:
      passes = {name: self._pass(batch, other, True) for name, other in term.passes.items()}
      found = term.fn(seen, jax.lax.stop_gradient(passes))
      if found.shape != batch.decoder_target_tokens.shape:
        raise UserError(
          f'A loss term of {type(self.prompt).__name__} has shape {list(found.shape)}; expected '
          f'{list(batch.decoder_target_tokens.shape)}, a number for each target token.'
        )
      loss = loss + found.astype(jnp.float32)
    return seen.logits, loss

  def injections(
    self, tokens: Array, features: Features | None = None, train: bool = False
  ) -> Injections:
    """What the method adds for these inputs (int32[B, T]); nothing for the bare model."""
    if self.prompt is None:
      return Injections()
    reads, mask = self.prompt.depends_on, self.is_read(tokens)
    inputs = {'tokens': tokens, 'mask': mask}
    if reads & {'embeds', 'hidden', 'pooled'}:
      inputs['embeds'] = embeds = self.backbone.embed(tokens)
    if reads & {'hidden', 'pooled'}:
      inputs['hidden'] = states = self.states(tokens, embeds)
      inputs['pooled'] = masked_mean(states, mask)
    ctx = context_for(self.prompt, self.backbone.cfg.sizes, inputs, features or {}, train)
    with failures_explained(self.prompt):
      found = self.prompt(ctx)
    check_injections(self.prompt, found, self.backbone.cfg.sizes, tokens.shape[0])
    return found

  @abc.abstractmethod
  def _pass(self, batch: Batch, injections: Injections, deterministic: bool) -> Seen:
    """One pass by teacher forcing."""


class PromptedT5(Prompted):
  """A T5 and the method that prompts it."""

  backbone: T5

  def _pass(self, batch: Batch, injections: Injections, deterministic: bool) -> Seen:
    encoded = self._encode(batch, injections, deterministic)
    layout = Layout(
      mask=jnp.ones(batch.decoder_input_tokens.shape, bool),
      segments=batch.decoder_segment_ids,
      positions=batch.decoder_positions,
    )
    return self._decode(
      encoded, batch.decoder_input_tokens, layout, deterministic, batch.decoder_prompt_slot
    )

  def states(self, tokens: Array, embeds: Array) -> Array:
    (states,) = self.backbone.encode(embeds, Layout(mask=tokens > 0), Injection())
    return states

  def encode(
    self,
    encoder_input_tokens: Array,
    features: Features | None = None,
    deterministic: bool = True,
    injections: Injections | None = None,
  ) -> Encoded:
    if injections is None:
      injections = self.injections(encoder_input_tokens, features)
    empty = jnp.zeros((0, 0), jnp.int32)
    batch = Batch(encoder_input_tokens, empty, empty, empty)
    return self._encode(batch, injections, deterministic)

  def _encode(self, batch: Batch, injections: Injections, deterministic: bool) -> Encoded:
    tokens = batch.encoder_input_tokens
    layout = Layout(
      mask=tokens > 0,
      segments=batch.encoder_segment_ids,
      positions=batch.encoder_positions,
    )
    x = self.backbone.embed(tokens)
    x, layout = attach(injections.encoder, x, layout, batch.prompt_slot)
    states = self.backbone.encode(x, layout, injections.encoder, deterministic=deterministic)
    return Encoded(states, layout, injections)

  def decode(
    self, encoded: Encoded, decoder_input_tokens: Array, deterministic: bool = True
  ) -> Array:
    layout = Layout(mask=jnp.ones(decoder_input_tokens.shape, bool))
    return self._decode(encoded, decoder_input_tokens, layout, deterministic).logits

  def _decode(
    self,
    encoded: Encoded,
    tokens: Array,
    layout: Layout,
    deterministic: bool,
    slot: Array | None = None,
  ) -> Seen:
    injection = encoded.injections.decoder
    x, layout = attach(injection, self.backbone.embed(tokens), layout, slot, causal=True)
    # Both placements of a decoder put P rows before the first predicted token.
    skip = prefix_length(injection) if slot is None else 0
    logits, states, _, _ = self.backbone.decode(
      x,
      layout,
      encoded.all_states,
      encoded.layout,
      injection,
      encoded.injections.cross,
      deterministic=deterministic,
      skip=skip,
    )
    return Seen(logits, states)

  def start_cache(self, encoded: Encoded, max_len: int) -> tuple[Array, Cache]:
    # The decoder's prompt and the start token.
    cfg, injection = self.backbone.cfg, encoded.injections.decoder
    b, extra = encoded.states.shape[0], kv_length(injection)
    rows = extra + prefix_length(injection) + max_len
    shape = (cfg.num_decoder_layers, b, rows, cfg.num_heads, cfg.head_dim)
    keys, values = jnp.zeros(shape, cfg.dtype), jnp.zeros(shape, cfg.dtype)
    if injection.kv is not None:
      front = injection.kv.astype(cfg.dtype)
      front = jnp.broadcast_to(front, (*front.shape[:2], b, *front.shape[3:]))
      keys, values = (
        keys.at[:, :, :extra].set(front[:, 0]),
        values.at[:, :, :extra].set(front[:, 1]),
      )
    tokens = jnp.zeros((b, 1), jnp.int32)
    x, layout = attach(
      injection, self.backbone.embed(tokens), Layout(mask=tokens == 0), causal=True
    )
    visible = visible_rows(layout, injection)
    if visible is not None:
      visible = jnp.pad(visible, ((0, 0), (0, max_len - 1)), constant_values=True)
    own = SelfCache(keys, values, jnp.int32(extra), jnp.int32(0), visible)
    return self._cached(encoded, x, layout, own, None)

  def decode_step(self, encoded: Encoded, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
    tokens = tokens[:, None]
    layout = Layout(mask=jnp.ones(tokens.shape, bool))
    return self._cached(encoded, self.backbone.embed(tokens), layout, cache.own, cache.cross)

  def _cached(
    self,
    encoded: Encoded,
    x: Array,
    layout: Layout,
    own: SelfCache,
    cross: tuple[KeysValues, ...] | None,
  ) -> tuple[Array, Cache]:
    count = x.shape[1]
    # Injected cross keys are already part of cached ones, but still widen the mask.
    logits, _, filled, cross = self.backbone.decode(
      x,
      layout,
      encoded.all_states,
      encoded.layout,
      encoded.injections.decoder,
      encoded.injections.cross,
      skip=count - 1,
      cache=own,
      cached_cross=cross,
    )
    assert filled is not None  # a cache was given, so both came back
    assert cross is not None
    own = dataclasses.replace(filled, start=filled.start + count, layer=jnp.int32(0))
    return logits[:, 0], Cache(own, cross)
