"""A decoder-only model that reads an input once and writes targets behind it; knows no method."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.injections import Injection, Layout
from prompt_jax.models.causal.config import CausalConfig
from prompt_jax.models.causal.stack import ReadInput, Stack, input_view, target_view
from prompt_jax.models.t5.layers import SelfCache, TokenTable

Array = jax.Array


class CausalLM(nn.Module):
  """Embedding and layers; `read` takes an input, `write` a target behind it."""

  cfg: CausalConfig

  def setup(self):
    cfg = self.cfg
    self.token_embedder = TokenTable(
      cfg.vocab_size, cfg.emb_dim, cfg.dtype, scale=cfg.embed_scale, spread=0.02
    )
    self.decoder = Stack(self.cfg)

  def __call__(self, input_tokens: Array, target_tokens: Array) -> Array:
    """The bare model: int32[B, T], int32[B, U] -> float32[B, U, V] logits behind each target."""
    layout = Layout(mask=input_tokens > 0)
    _, read = self.read(self.embed(input_tokens), layout, Injection())
    return self.write(self.embed(target_tokens), read, Injection())[0]

  def embed(self, tokens: Array) -> Array:
    """int32[B, T] -> [B, T, H] in the compute dtype."""
    return self.token_embedder(tokens)

  def read(self, x: Array, layout: Layout, injection: Injection) -> tuple[Array, ReadInput]:
    """An input, among whose embeddings [B, S, H] its prompt rows already are.

    Returns:
      [B, S, H] normed states, and what targets need of them.
    """
    view, count = input_view(layout, injection)
    states, _, made = self.decoder(x, view, injection)
    assert made is not None  # the view keeps them
    return states, ReadInput(made, layout, view.positions, count)

  def write(
    self,
    x: Array,
    read: ReadInput,
    injection: Injection,
    *,
    skip: int = 0,
    cache: SelfCache | None = None,
  ) -> tuple[Array, Array, SelfCache | None]:
    """A target, whole or the next positions of `cache`.

    Args:
      x: [B, Q, H] embeddings.
      read: of the input.
      injection: that it was read with.
      skip: leading positions whose logits nobody needs.
      cache: keys and values of its earlier positions.

    Returns:
      float32[B, Q - skip, V] logits of what follows each position, the states [B, Q - skip, H] that
      they are made of, and the cache.
    """
    length = x.shape[1]
    start, room = (0, length) if cache is None else (cache.start, cache.keys.shape[2])
    view = target_view(length, start, room, read, injection)
    x, cache, _ = self.decoder(x, view, injection, read.keys_values, cache, skip)
    logits = self.token_embedder.attend(x) if self.cfg.tied_logits else self.decoder.logits(x)
    cap = self.cfg.logit_softcap
    logits = logits if cap is None else cap * jnp.tanh(logits / cap)
    if injection.head is not None:
      logits = injection.head.fn(injection.head.theta, x, logits)
    return logits, x, cache
