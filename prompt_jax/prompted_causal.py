"""A prompt method on a frozen decoder-only model: the one place where both meet.

A row is [input; target]: what stands in front of every input and between it and the target
(`CausalConfig.before` and `between`) is the model's, prompt rows are put into the input, and the
input is read once for all targets that are asked for.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from prompt_jax.attach import attach
from prompt_jax.batch import Batch, Features
from prompt_jax.data.vocabulary import EOS_ID
from prompt_jax.errors import UserError
from prompt_jax.injections import Injection, Injections, Layout, Seen
from prompt_jax.models.causal.causal import CausalLM
from prompt_jax.models.causal.stack import ReadInput
from prompt_jax.models.t5.layers import SelfCache
from prompt_jax.prompted import Cache, Prompted

Array = jax.Array


@struct.dataclass
class Read:
  """What the target needs of one batch of inputs.

  Attributes:
    input: of every layer.
    injections: what the prompt adds.
  """

  input: ReadInput
  injections: Injections

  @property
  def prefix_apart(self) -> bool:
    """Whether an input-independent prefix was computed once for all rows; never, here."""
    return False


def no_packed_rows() -> UserError:
  """The mistake of several examples in a row."""
  return UserError(
    'A decoder-only model takes no packed rows. Train without packing.', parameters=['pack']
  )


class PromptedCausal(Prompted):
  """A decoder-only model and the method that prompts it; `prompt=None` is the bare model."""

  backbone: CausalLM

  def _pass(self, batch: Batch, injections: Injections, deterministic: bool) -> Seen:
    """One pass; `deterministic` has no effect: the model has no dropout.

    Raises:
      UserError: packed rows.
    """
    del deterministic
    if batch.encoder_segment_ids is not None:
      raise no_packed_rows()
    return self._decode(
      self._read(batch.encoder_input_tokens, injections), batch.decoder_input_tokens
    )

  def encode(
    self,
    encoder_input_tokens: Array,
    features: Features | None = None,
    deterministic: bool = True,
    injections: Injections | None = None,
  ) -> Read:
    del deterministic
    if injections is None:
      injections = self.injections(encoder_input_tokens, features)
    return self._read(encoder_input_tokens, injections)

  def decode(self, encoded: Read, decoder_input_tokens: Array, deterministic: bool = True) -> Array:
    del deterministic
    return self._decode(encoded, decoder_input_tokens).logits

  def _decode(self, encoded: Read, tokens: Array) -> Seen:
    x, skip = self._behind_input(tokens)
    logits, states, _ = self.backbone.write(x, encoded.input, encoded.injections.decoder, skip=skip)
    return Seen(logits, states)

  def start_cache(self, encoded: Read, max_len: int) -> tuple[Array, Cache]:
    # What stands between input and target.
    cfg, b = self.backbone.cfg, encoded.input.count.shape[0]
    x, skip = self._behind_input(jnp.zeros((b, 1), jnp.int32))
    shape = (cfg.num_layers, b, skip + max_len, cfg.num_kv_heads, cfg.head_dim)
    empty = jnp.zeros(shape, cfg.dtype)
    own = SelfCache(empty, empty, jnp.int32(0), jnp.int32(0))
    return self._cached(encoded, x, own)

  def decode_step(self, encoded: Read, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
    return self._cached(encoded, self.backbone.embed(tokens[:, None]), cache.own)

  def _cached(self, encoded: Read, x: Array, own: SelfCache) -> tuple[Array, Cache]:
    count = x.shape[1]
    logits, _, filled = self.backbone.write(
      x, encoded.input, encoded.injections.decoder, skip=count - 1, cache=own
    )
    assert filled is not None  # a cache was given
    own = dataclasses.replace(filled, start=filled.start + count, layer=jnp.int32(0))
    return logits[:, 0], Cache(own, ())

  def is_read(self, tokens: Array) -> Array:
    return (tokens > 0) & ((tokens != EOS_ID) | self.backbone.cfg.reads_end)

  def states(self, tokens: Array, embeds: Array) -> Array:
    x, mask = self._framed(tokens, embeds)
    return self.backbone.read(x, Layout(mask=mask), Injection())[0][:, -tokens.shape[1] :]

  def _read(self, tokens: Array, injections: Injections) -> Read:
    injection, embeds = injections.decoder, self.backbone.embed(tokens)
    if injection.delta is not None:
      embeds = embeds + injection.delta.astype(embeds.dtype)
    x, mask = self._framed(tokens, embeds)
    placement = injection.placement
    if placement == 'before_eos' and not self.backbone.cfg.reads_end:
      placement = 'after_eos'  # the end is not read: the last that is read is before it
    among = dataclasses.replace(injection, delta=None, placement=placement)
    x, layout = attach(among, x, Layout(mask=mask), apart=False)
    return Read(self.backbone.read(x, layout, injection)[1], injections)

  def _framed(self, tokens: Array, embeds: Array) -> tuple[Array, Array]:
    """Embeddings with what stands before every input, and which of them are read."""
    cfg, b = self.backbone.cfg, tokens.shape[0]
    mask = self.is_read(tokens)
    front = self._fixed(cfg.before, b)
    there = jnp.ones(front.shape[:2], bool)
    return jnp.concatenate([front, embeds], axis=1), jnp.concatenate([there, mask], axis=1)

  def _behind_input(self, tokens: Array) -> tuple[Array, int]:
    """Embeddings of what follows the input, and how many of them predict no target token.

    `tokens` begin with a T5's start token, for which the last one before the target stands.
    """
    between = self.backbone.cfg.between
    front = self._fixed(between, tokens.shape[0])
    x = jnp.concatenate([front, self.backbone.embed(tokens[:, 1:])], axis=1)
    return x, len(between) - 1

  def _fixed(self, ids: tuple[int, ...], rows: int) -> Array:
    """[B, n, H] embeddings of the same tokens in every row."""
    x = self.backbone.embed(jnp.asarray(ids, jnp.int32).reshape(1, -1))
    return jnp.broadcast_to(x, (rows, *x.shape[1:]))
