"""Our cached decoding in the form that T5X's beam search and sampling drive."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax.prompted import Cache, PromptedT5

Array = jax.Array

# T5X repeats and reorders every leaf of a cache along its beams but those of this name.
CALLS = 'cache_index'


class CachedDecoder:
  """`tokens_to_logits` of T5X's decoding functions, for some inputs.

  T5X lays beams out as rows, all beams of an input side by side. The keys and values of the decoder
  itself differ between beams and are what T5X reorders; what belongs to the encoder is the same for
  all beams of an input and is never repeated.

  Attributes:
    cache: to be given to T5X with `cache_offset=1`: leaves [L, B, ...], and how many tokens were
      decoded.
  """

  def __init__(
    self,
    module: PromptedT5,
    variables: Mapping[str, Any],
    encoder_input_tokens: Array,
    max_len: int,
    beams: int,
  ):
    """Encodes and prefills the decoder's prompt and start token.

    Args:
      module: the model.
      variables: its parameters.
      encoder_input_tokens: int32[B, T].
      max_len: U, the most tokens to decode.
      beams: sequences that T5X keeps of each input.
    """
    self._module, self._variables, self._beams = module, variables, beams
    self._encoded: Any = module.apply(variables, encoder_input_tokens, method='encode')
    # T5X may compute one position past the last.
    made: Any = module.apply(variables, self._encoded, max_len + 1, method='start_cache')
    first, cache = made
    self._first = jnp.repeat(first, beams, axis=0)
    self._start, self._cross = cache.own, cache.cross
    self.cache = {
      'keys': cache.own.keys,
      'values': cache.own.values,
      CALLS: jnp.int32(0),
    }

  def __call__(self, state: Any) -> tuple[Array, dict[str, Array]]:
    """T5X's decoding state (tokens int32[B * beams, 1] and cache) -> logits and the new cache."""
    cache = state.cache
    logits, keys, values = jax.lax.cond(
      cache[CALLS] == 0,
      # T5X's first token is the start token, which is in the cache already.
      lambda: (self._first, cache['keys'], cache['values']),
      lambda: self._step(state.cur_token, cache),
    )
    return logits, {'keys': keys, 'values': values, CALLS: cache[CALLS] + 1}

  def _step(self, tokens: Array, cache: Mapping[str, Array]) -> tuple[Array, Array, Array]:
    position = self._start.start + cache[CALLS] - 1

    def one_beam(tokens: Array, keys: Array, values: Array) -> tuple[Array, Array, Array]:
      own = dataclasses.replace(self._start, keys=keys, values=values, start=position)
      made: Any = self._module.apply(
        self._variables, self._encoded, tokens, Cache(own, self._cross), method='decode_step'
      )
      logits, new = made
      return logits, new.own.keys, new.own.values

    split_beams = lambda x, axis: x.reshape(*x.shape[:axis], -1, self._beams, *x.shape[axis + 1 :])
    logits, keys, values = jax.vmap(one_beam, in_axes=(1, 2, 2), out_axes=(1, 2, 2))(
      split_beams(tokens[:, 0], 0),
      split_beams(cache['keys'], 1),
      split_beams(cache['values'], 1),
    )
    merge_beams = lambda x, axis: x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return merge_beams(logits, 0), merge_beams(keys, 1), merge_beams(values, 1)
