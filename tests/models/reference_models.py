"""Tiny models of each variant, as ours and as Hugging Face's, with the same random weights."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from prompt_jax.batch import Batch
from prompt_jax.checkpoints.formats.huggingface import from_huggingface
from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5

# N * D is not H and the stacks differ in depth, so that nothing fits by accident.
SIZES = dict(
  d_model=32, d_kv=8, num_heads=3, d_ff=48, num_layers=3, num_decoder_layers=2, vocab_size=96
)
# Class, configuration class, sizes that differ, and the published tie_word_embeddings.
VARIANTS = {
  't5_1_1': ('T5', dict(feed_forward_proj='gated-gelu', tie_word_embeddings=False)),
  't5': ('T5', dict(feed_forward_proj='relu', tie_word_embeddings=True)),
  'gated_relu': ('T5', dict(feed_forward_proj='gated-relu', tie_word_embeddings=False)),
  'mt5': ('MT5', dict(tie_word_embeddings=False, vocab_size=300, num_heads=2, d_kv=12)),
  'umt5': ('UMT5', dict(tie_word_embeddings=False)),
}


@dataclasses.dataclass(frozen=True)
class Reference:
  """One variant: Hugging Face's model, and our architecture and weights made from it."""

  torch_model: Any
  cfg: T5Config
  params: Any

  def model(self, prompt: nn.Module | None = None) -> PromptedT5:
    return PromptedT5(T5(self.cfg), prompt)


@functools.cache
def reference(variant: str, **sizes: int) -> Reference:
  name, overrides = VARIANTS[variant]
  published = {**SIZES, **overrides, **sizes}
  theirs = getattr(transformers, f'{name}Config')(
    **published, dropout_rate=0.0, decoder_start_token_id=0
  )
  theirs._attn_implementation = 'eager'
  model = getattr(transformers, f'{name}ForConditionalGeneration')(theirs).eval()
  untied = published['tie_word_embeddings'] is False
  if untied:  # newer releases tie at construction whatever the configuration says
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
    model.config.tie_word_embeddings = False
  _randomise(model)
  state = {k: v.detach().numpy().copy() for k, v in model.state_dict().items()}
  config = {**theirs.to_dict(), **published, 'model_type': name.lower()}
  cfg, params = from_huggingface(state, config)
  assert cfg.tied_logits is not untied
  return Reference(model, cfg, jax.tree.map(jnp.asarray, params))


def _randomise(model: torch.nn.Module) -> None:
  """Weights for which attention is far from uniform and every norm has a scale of its own."""
  rng = torch.Generator().manual_seed(0)
  for name, p in model.named_parameters():
    x = torch.randn(p.shape, generator=rng)
    if p.ndim == 1:
      x = 1 + 0.2 * x
    elif 'relative_attention_bias' not in name and 'shared' not in name:
      x = x * p.shape[1] ** -0.5
    p.data = x


class Rows(nn.Module):
  """A minimal method: rows put in front of the encoder's input."""

  length: int
  depends_on = frozenset()

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    rows = self.param('rows', nn.initializers.normal(1.0), (self.length, ctx.input_dims.H))
    return Injections(encoder=Injection(prefix=rows[None]))


def tokens(key: int, lengths: tuple[int, ...], vocab_size: int, eos: bool = True) -> np.ndarray:
  """int32[B, max(lengths)] random ids from 2 on, the last real one EOS, 0 after it."""
  rng = np.random.default_rng(key)
  out = np.zeros((len(lengths), max(lengths)), np.int32)
  for row, n in zip(out, lengths, strict=True):
    row[:n] = rng.integers(2, vocab_size, n)
    if eos:
      row[n - 1] = 1
  return out


def batch(encoder: np.ndarray, decoder: np.ndarray, **packed: np.ndarray) -> Batch:
  """A batch whose targets nobody reads."""
  weights = np.ones(decoder.shape, np.float32)
  return Batch(jnp.asarray(encoder), jnp.asarray(decoder), decoder, weights, **packed)


def normal(seed: int, *shape: int) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)
