"""A T5-family encoder-decoder with T5X's parameter names; knows injections, not methods.

The tree is T5X's, with `layers_0`, `layers_1`, ... stacked into `layers` (leading L axis).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.injections import Injection, Layout
from prompt_jax.models.t5 import stack
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.layers import KeysValues, SelfCache, TokenTable

Array = jax.Array


class T5(nn.Module):
  """Embedding, encoder and decoder, each callable by itself."""

  cfg: T5Config

  def setup(self):
    cfg = self.cfg
    self.token_embedder = TokenTable(
      cfg.vocab_size, cfg.emb_dim, cfg.dtype, logits_scale=cfg.emb_dim**-0.5
    )
    self.encoder = stack.Encoder(self.cfg)
    self.decoder = stack.Decoder(self.cfg)

  def __call__(self, encoder_input_tokens: Array, decoder_input_tokens: Array) -> Array:
    """The bare model: int32[B, T], int32[B, U] -> float32[B, U, V] logits."""
    layout = Layout(mask=encoder_input_tokens > 0)
    states = self.encode(self.embed(encoder_input_tokens), layout, Injection())
    own = Layout(mask=jnp.ones(decoder_input_tokens.shape, bool))
    x = self.embed(decoder_input_tokens)
    return self.decode(x, own, states, layout, Injection(), Injection())[0]

  def embed(self, tokens: Array) -> Array:
    """int32[B, T] -> [B, T, H] in the compute dtype."""
    return self.token_embedder(tokens)

  def encode(
    self, x: Array, layout: Layout, injection: Injection, *, deterministic: bool = True
  ) -> tuple[Array, ...]:
    """As `stack.Encoder`."""
    return self.encoder(x, layout, injection, deterministic)

  def decode(
    self,
    x: Array,
    layout: Layout,
    states: tuple[Array, ...],
    states_layout: Layout,
    injection: Injection,
    cross: Injection,
    *,
    deterministic: bool = True,
    skip: int = 0,
    cache: SelfCache | None = None,
    cached_cross: tuple[KeysValues, ...] | None = None,
  ) -> tuple[Array, Array, SelfCache | None, tuple[KeysValues, ...] | None]:
    """As `stack.Decoder`, and always to logits: float32[B, Q - skip, V]."""
    x, final, cache, cross_kv = self.decoder(
      x,
      layout,
      states,
      states_layout,
      injection,
      cross,
      deterministic,
      skip=skip,
      cache=cache,
      cached_cross=cached_cross,
    )
    if self.cfg.tied_logits:
      x = self.token_embedder.attend(x)
    if injection.head is not None:
      x = injection.head.fn(injection.head.theta, final, x)
    return x, final, cache, cross_kv
