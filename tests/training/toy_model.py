"""A model of a few hundred weights with the interface of the real one, which compiles at once."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from prompt_jax.batch import Batch

V, H, P, T, U = 13, 6, 3, 5, 4


class Backbone(nn.Module):
  @nn.compact
  def __call__(self, tokens, prompt, deterministic):
    embed = nn.Embed(V, H, name='embed')
    x = embed(tokens)
    rows = jnp.broadcast_to(prompt, (x.shape[0], *prompt.shape))
    x = jnp.tanh(nn.Dense(H, name='mix')(jnp.concatenate([rows, x], axis=1))).mean(axis=1)
    x = nn.Dropout(0.5)(x, deterministic=deterministic)
    return nn.Dense(U * V, name='logits')(x).reshape(x.shape[0], U, V)


class Prompt(nn.Module):
  @nn.compact
  def __call__(self):
    scale = self.variable('constants', 'scale', jnp.ones, (H,))
    return self.param('prompt', nn.initializers.normal(1.0), (P, H)) * scale.value[None]


class ToyModel(nn.Module):
  def setup(self):
    self.backbone = Backbone()
    self.prompt = Prompt()

  def __call__(self, batch, deterministic=True, train=False):
    prompt = self.prompt()
    logits = self.backbone(batch.encoder_input_tokens, prompt, deterministic)
    return logits, 0.01 * jnp.mean(prompt**2)


def toy_batch(rows: int, seed: int = 0) -> Batch:
  """The first target says whether token 1 or 2 comes first, so a prompt has something to learn."""
  rng = np.random.default_rng(seed)
  inputs = rng.integers(1, V, (rows, T)).astype(np.int32)
  targets = rng.integers(1, V, (rows, U)).astype(np.int32)
  targets[:, 0] = 1 + (inputs[:, 0] % 2)
  lengths = rng.integers(1, U + 1, (rows, 1))
  weights = (np.arange(U)[None] < lengths).astype(np.float32)
  targets = np.where(weights > 0, targets, 0).astype(np.int32)
  return Batch(
    encoder_input_tokens=inputs,
    decoder_input_tokens=np.roll(targets, 1, axis=1),
    decoder_target_tokens=targets,
    decoder_loss_weights=weights,
  )


def toy_variables(seed: int = 0) -> dict:
  batch = jax.tree.map(jnp.asarray, toy_batch(2))
  return dict(ToyModel().init(jax.random.key(seed), batch))
