"""Beam search with a cache, by the rules of Hugging Face's (early_stopping="never").

Letters besides the usual ones: K beams.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_jax.batch import Features
from prompt_jax.errors import UserError
from prompt_jax.inference.decode import Decoded, Variables
from prompt_jax.prompted import Cache, Prompted

Array = jax.Array
# Length of a sequence -> what its log-probability is divided by; must not fall with the length.
Divisor = Callable[[Array], Array]

LENGTH_PENALTY = 0.6  # of the T5 paper
_NEVER = -1e7  # log-probability of a sequence that is out of the search


def gnmt_penalty(alpha: float) -> Divisor:
  """((5 + length) / 6) ** alpha (Wu et al. 2016, equation 14), as T5 has it.

  Raises:
    UserError: `alpha` is negative.
  """
  if alpha < 0:
    raise UserError(f'length_penalty is {alpha}; expected 0 (none) or more.')
  return lambda length: ((5 + length) / 6) ** alpha


def beam_search(
  model: Prompted,
  variables: Variables,
  encoder_input_tokens: Array,
  max_len: int,
  beams: int,
  *,
  divisor: Divisor | None = None,
  eos_id: int = 1,
  features: Features | None = None,
  limits: Array | None = None,
) -> Decoded:
  """The best sequence that a beam of width `beams` finds, by log-probability over `divisor`.

  Each step keeps the K most probable continuations that have not ended. A sequence is complete when
  end-of-sequence is among the K most probable continuations, or at `max_len`. The search ends when
  no row has a beam that could still become better than its best complete sequence.

  Args:
    model: the model and its prompt.
    variables: its 'params' and, for methods that have them, 'constants'.
    encoder_input_tokens: int32[B, T].
    max_len: U, the most tokens to decode, end-of-sequence included.
    beams: K, the width.
    divisor: penalizes short sequences; None: `gnmt_penalty(LENGTH_PENALTY)`.
    eos_id: ends a sequence.
    features: int32[B] by name, for methods that read features of an example.
    limits: int32[B] most tokens of each row, at most U; None for U.

  Returns:
    The sequences, and their log-probabilities before the division.

  Raises:
    UserError: `beams` is below 1.
  """
  if beams < 1:
    raise UserError(f'beams is {beams}; expected 1 (greedy) or more.')
  divisor = divisor or gnmt_penalty(LENGTH_PENALTY)
  apply: Any = functools.partial(model.apply, variables)
  encoded = apply(encoder_input_tokens, features=features, method='encode')
  logits, cache = apply(encoded, max_len, method='start_cache')
  # Keys and values of the inputs are the same for all beams, and are kept once.
  own = dataclasses.replace(cache.own, keys=0, values=0, start=None, layer=None, visible=None)
  axes = dataclasses.replace(cache, own=own, cross=None)
  repeat = lambda x: jnp.broadcast_to(x, (beams, *x.shape))
  own = dataclasses.replace(cache.own, keys=repeat(cache.own.keys), values=repeat(cache.own.values))
  decode_step = jax.vmap(
    lambda tokens, cache: apply(encoded, tokens, cache, method='decode_step'),
    in_axes=(0, axes),
    out_axes=(0, axes),
  )

  def go_on(state: _State) -> Array:
    possible = state.scores[:, 0] / divisor(state.limits.astype(jnp.float32))
    return (state.step < max_len) & jnp.any(possible > state.best_score)

  def step(state: _State) -> _State:
    last = jax.lax.dynamic_index_in_dim(state.tokens, state.step - 1, axis=2, keepdims=False)
    logits, cache = decode_step(last.T, state.cache)
    return _advance(state._replace(cache=cache), logits, divisor, eos_id)

  rows = encoder_input_tokens.shape[0]
  state = _State(
    step=jnp.int32(0),
    tokens=jnp.zeros((rows, beams, max_len), jnp.int32),
    # All beams begin alike: only the first may go on.
    scores=jnp.full((rows, beams), _NEVER).at[:, 0].set(0.0),
    best_tokens=jnp.zeros((rows, max_len), jnp.int32),
    best_score=jnp.full(rows, _NEVER),
    best_log_prob=jnp.zeros(rows),
    limits=jnp.full(rows, max_len, jnp.int32) if limits is None else limits,
    cache=dataclasses.replace(cache, own=own),
  )
  state = _advance(state, repeat(logits), divisor, eos_id)
  state = jax.lax.while_loop(go_on, step, state)
  return Decoded(state.best_tokens, state.best_log_prob, state.step)


class _State(NamedTuple):
  """The loop's state.

  Attributes:
    step: int32[] positions done.
    tokens: int32[B, K, U] the beams.
    scores: float32[B, K] their log-probabilities, falling.
    best_tokens: int32[B, U] the best complete sequence.
    best_score: float32[B] its log-probability, divided.
    best_log_prob: float32[B] the same, not divided.
    limits: int32[B] most tokens of each row.
    cache: of the decoder; its own keys and values have a leading axis K.
  """

  step: Array
  tokens: Array
  scores: Array
  best_tokens: Array
  best_score: Array
  best_log_prob: Array
  limits: Array
  cache: Cache


def _advance(state: _State, logits: Array, divisor: Divisor, eos_id: int) -> _State:
  """One token more on every beam, from float32[K, B, V] logits."""
  beams, rows, size = logits.shape
  log_probs = state.scores[:, :, None] + jax.nn.log_softmax(logits).swapaxes(0, 1)
  # Twice as many as beams, so that enough go on if K of them end.
  log_probs, found = jax.lax.top_k(log_probs.reshape(rows, beams * size), 2 * beams)
  parent, token = found // size, (found % size).astype(jnp.int32)
  tokens = jnp.take_along_axis(state.tokens, parent[:, :, None], axis=1)
  tokens = jax.lax.dynamic_update_slice(tokens, token[:, :, None], (0, 0, state.step))

  length = state.step + 1
  ended = (token == eos_id) | (length >= state.limits[:, None])
  complete = ended & (jnp.arange(2 * beams) < beams)[None]
  divided = jnp.where(complete, log_probs / divisor(length.astype(jnp.float32)), _NEVER)
  first = jnp.argmax(divided, axis=1)[:, None]
  score = jnp.take_along_axis(divided, first, axis=1)[:, 0]
  better = score > state.best_score
  best_tokens = jnp.take_along_axis(tokens, first[:, :, None], axis=1)[:, 0]
  best_log_prob = jnp.take_along_axis(log_probs, first, axis=1)[:, 0]

  scores, kept = jax.lax.top_k(jnp.where(ended, _NEVER, log_probs), beams)
  of_kept = jnp.take_along_axis(parent, kept, axis=1).T[:, None, :, None, None, None]
  own = state.cache.own
  own = dataclasses.replace(
    own,
    keys=jnp.take_along_axis(own.keys, of_kept, axis=0),
    values=jnp.take_along_axis(own.values, of_kept, axis=0),
  )
  return _State(
    step=length,
    tokens=jnp.take_along_axis(tokens, kept[:, :, None], axis=1),
    scores=scores,
    best_tokens=jnp.where(better[:, None], best_tokens, state.best_tokens),
    best_score=jnp.where(better, score, state.best_score),
    best_log_prob=jnp.where(better, best_log_prob, state.best_log_prob),
    limits=state.limits,
    cache=dataclasses.replace(state.cache, own=own),
  )
