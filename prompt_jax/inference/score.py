"""Log-probabilities of given texts: rank classification and scoring of targets."""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.batch import Features
from prompt_jax.inference.decode import Variables
from prompt_jax.prompted import Prompted

Array = jax.Array
Normalize = Literal['none', 'tokens']
NORMALIZE: tuple[Normalize, ...] = get_args(Normalize)


def rank(
  model: Prompted,
  variables: Variables,
  encoder_input_tokens: Array,
  label_tokens: Array | np.ndarray,
  normalize: Normalize = 'none',
  features: Features | None = None,
  labels_at_once: int = 4,
) -> Array:
  """Log-probability of each label as the target of each input (rank classification).

  Args:
    model: the model and its prompt.
    variables: its 'params' and, for methods that have them, 'constants'.
    encoder_input_tokens: int32[B, T].
    label_tokens: int32[C, U] ids of the labels, end-of-sequence included, 0 after it; or
      int32[B, C, U], labels of each input's own.
    normalize: "tokens" divides by the label's number of tokens, for labels of different lengths.
    features: int32[B] by name, for methods that read features of an example.
    labels_at_once: labels decoded at a time; memory for that many [B, V] logits.

  Returns:
    float32[B, C] in nats; the argmax over C is the predicted label.
  """
  found = token_log_probs(
    model, variables, encoder_input_tokens, label_tokens, features, labels_at_once
  )
  total = found[..., 0] + jnp.sum(found[..., 1:], axis=-1)
  if normalize == 'none':
    return total
  return total / jnp.broadcast_to(_lengths(jnp.asarray(label_tokens)), total.shape)


def token_log_probs(
  model: Prompted,
  variables: Variables,
  encoder_input_tokens: Array,
  label_tokens: Array | np.ndarray,
  features: Features | None = None,
  labels_at_once: int = 4,
) -> Array:
  """Log-probability of each token of each label; arguments as in `rank`.

  The inputs are encoded once, cross-attention keys and values are computed once, and so is the
  first target position, which all labels share. Then labels are decoded with the cache,
  `labels_at_once` at a time, by `vmap` over labels rather than by repeating rows, so that encoder
  outputs are never copied. Teacher forcing would recompute the keys and values of all S encoder
  positions for each label, which costs more than the few tokens of a label.

  Returns:
    float32[B, C, U] in nats, the tokens before it given; 0 behind the end of a label.
  """
  b, (count, length) = encoder_input_tokens.shape[0], label_tokens.shape[-2:]
  encoded = model.apply(variables, encoder_input_tokens, features=features, method='encode')
  first_logits, start = model.apply(variables, encoded, length, method='start_cache')
  first = jax.nn.log_softmax(first_logits)

  def one_label(label: Array) -> Array:
    """int32[U, B] -> float32[U, B]."""

    def step(cache, given_and_next):
      given, following = given_and_next
      logits, cache = model.apply(variables, encoded, given, cache, method='decode_step')
      return cache, _of_token(logits, following)

    _, later = jax.lax.scan(step, start, (label[:-1], label[1:]))  # [U - 1, B]
    of_first = jnp.take_along_axis(first, label[0][:, None], axis=1).T
    return jnp.concatenate([of_first, jnp.where(label[1:] > 0, later, 0.0)])

  # Equal chunks, the last one filled up with empty labels: one loop body to compile.
  by_label = jnp.broadcast_to(label_tokens, (b, count, length)).transpose(1, 2, 0)
  chunks = -(-count // labels_at_once)
  size = -(-count // chunks)
  filled = jnp.pad(by_label, ((0, chunks * size - count), (0, 0), (0, 0)))
  scores = jax.lax.map(jax.vmap(one_label), filled.reshape(chunks, size, length, b))
  return scores.reshape(chunks * size, length, b)[:count].transpose(2, 0, 1)


def score(
  model: Prompted,
  variables: Variables,
  encoder_input_tokens: Array,
  target_tokens: Array,
  normalize: Normalize = 'none',
  features: Features | None = None,
) -> Array:
  """Log-probability of each input's own target, by teacher forcing (T5X's `score_batch`).

  Args:
    model: the model and its prompt.
    variables: its 'params' and, for methods that have them, 'constants'.
    encoder_input_tokens: int32[B, T].
    target_tokens: int32[B, U] ids, end-of-sequence included, 0 after it.
    normalize: "tokens" divides by the target's number of tokens.
    features: int32[B] by name, for methods that read features of an example.

  Returns:
    float32[B] in nats.
  """
  encoded = model.apply(variables, encoder_input_tokens, features=features, method='encode')
  shifted = jnp.pad(target_tokens, ((0, 0), (1, 0)))[:, :-1]
  logits: Any = model.apply(variables, encoded, shifted, method='decode')
  total = jnp.sum(_of_token(logits, target_tokens), axis=-1, where=target_tokens > 0)
  return total / _lengths(target_tokens) if normalize == 'tokens' else total


def _of_token(logits: Array, tokens: Array) -> Array:
  """log_softmax of float32[..., V] at int32[...], without a second [..., V] array."""
  chosen = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
  return chosen - jax.nn.logsumexp(logits, axis=-1)


def _lengths(tokens: Array) -> Array:
  return jnp.maximum(jnp.sum(tokens > 0, axis=-1), 1).astype(jnp.float32)
