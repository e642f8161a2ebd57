"""Logits by teacher forcing and by cached decoding, in one traced call."""

import jax
import jax.numpy as jnp


def both_ways(run, batch):
  """float32[B, U, V] twice; `run` is the `apply` of a `Prompted` with its variables."""
  encoded = run(batch.encoder_input_tokens, batch.features, method='encode')
  forced = run(encoded, batch.decoder_input_tokens, method='decode')
  targets = batch.decoder_target_tokens.T
  first, cache = run(encoded, len(targets), method='start_cache')

  def step(cache, tokens):
    logits, cache = run(encoded, tokens, cache, method='decode_step')
    return cache, logits

  rest = jax.lax.scan(step, cache, targets[:-1])[1]
  return forced, jnp.concatenate([first[None], rest]).swapaxes(0, 1)
