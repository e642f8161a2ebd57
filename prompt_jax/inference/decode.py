"""Decoding with a cache: greedy, and sampling as in T5X's `temperature_sample`.

The functions are pure and meant to be jitted with everything but the arrays fixed:
`jax.jit(functools.partial(greedy, model, max_len=16))(variables, tokens)`. One compilation serves
every batch of the same shape.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from prompt_jax.batch import Features
from prompt_jax.errors import UserError
from prompt_jax.prompted import Prompted

Array = jax.Array
Variables = Mapping[str, Any]
# (float32[B, V] logits, int32[] position of the token to choose) -> int32[B] tokens.
Choose = Callable[[Array, Array], Array]

# Below this temperature T5X takes the most probable token.
MIN_TEMPERATURE = 1e-4
_NEVER = -1e7  # logit of a token that is cut off


class Decoded(NamedTuple):
  """What was decoded.

  Attributes:
    tokens: int32[B, U] ids, end-of-sequence included and 0 after it.
    log_probs: float32[B] log-probability of `tokens` under the model itself (temperature 1,
      nothing cut off), in nats, end-of-sequence included.
    steps: int32[] target positions computed; below U if every row ended before.
  """

  tokens: Array
  log_probs: Array
  steps: Array


def greedy(
  model: Prompted,
  variables: Variables,
  encoder_input_tokens: Array,
  max_len: int,
  eos_id: int = 1,
  features: Features | None = None,
) -> Array:
  """The most probable token at each position.

  Args:
    model: the model and its prompt.
    variables: its 'params' and, for methods that have them, 'constants'.
    encoder_input_tokens: int32[B, T].
    max_len: U, the most tokens to decode, end-of-sequence included.
    eos_id: ends a row.
    features: int32[B] by name, for methods that read features of an example.

  Returns:
    int32[B, U] ids, end-of-sequence included and 0 after it.
  """
  return decode(
    model, variables, encoder_input_tokens, max_len, most_probable, eos_id, features
  ).tokens


def most_probable(logits: Array, position: Array) -> Array:
  """The choice of greedy decoding; of equal logits the lowest id."""
  del position
  return jnp.argmax(logits, -1)


def sample(
  model: Prompted,
  variables: Variables,
  encoder_input_tokens: Array,
  max_len: int,
  key: Array,
  *,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 0.0,
  eos_id: int = 1,
  features: Features | None = None,
) -> Decoded:
  """Samples one sequence a row; other arguments as in `greedy`.

  Several samples of each row: `jax.vmap` over keys.

  Args:
    model: as in `greedy`.
    variables: as in `greedy`.
    encoder_input_tokens: int32[B, T].
    max_len: as in `greedy`.
    key: the random key; the same key gives the same samples.
    temperature: divides the logits; below 1e-4 it means greedy.
    top_k: only the k most probable tokens, ties of the last one included; 0 for all.
    top_p: only the fewest tokens whose probability is at least this (Holtzman et al. 2020); 0 for
      all. Not together with `top_k`.
    eos_id: as in `greedy`.
    features: as in `greedy`.

  Raises:
    UserError: `top_k` or `top_p` out of range, or both given.
  """
  check_sampling(top_k, top_p)

  def choose(logits: Array, position: Array) -> Array:
    if temperature < MIN_TEMPERATURE:
      return jnp.argmax(logits, -1)
    logits = logits / temperature
    if top_k:
      logits = keep_top_k(logits, top_k)
    if top_p:
      logits = keep_top_p(logits, top_p)
    return jax.random.categorical(jax.random.fold_in(key, position), logits)

  return decode(model, variables, encoder_input_tokens, max_len, choose, eos_id, features)


def check_sampling(top_k: int, top_p: float) -> None:
  """Refuses what is out of range or excludes each other, see `sample`.

  Raises:
    UserError: it does.
  """
  if top_k < 0 or not 0 <= top_p <= 1 or (top_k and top_p):
    raise UserError(
      f'top_k is {top_k} and top_p {top_p}; expected top_k >= 0, 0 <= top_p <= 1, and one of '
      'them 0.',
      ['top_k', 'top_p'],
    )


class RowSampling(NamedTuple):
  """How each row is sampled.

  Attributes:
    temperature: float32[B] divides the logits; below 1e-4 the row is decoded greedily.
    top_k: int32[B] as in `sample`.
    top_p: float32[B] as in `sample`.
    keys: [B] the random key of each row, so that what is drawn for it does not depend on its batch.
  """

  temperature: Array
  top_k: Array
  top_p: Array
  keys: Array


def choose_by_row(how: RowSampling) -> Choose:
  """The choice of `sample`, each row by its own settings."""

  def choose_one(logits: Array, how: RowSampling, position: Array) -> Array:
    scaled = logits / jnp.maximum(how.temperature, MIN_TEMPERATURE)
    falling = jnp.sort(scaled)[::-1]
    least = falling[jnp.clip(how.top_k, 1, len(scaled)) - 1]
    scaled = jnp.where((how.top_k > 0) & (scaled < least), _NEVER, scaled)
    kept = jnp.where(how.top_p > 0, keep_top_p(scaled, how.top_p), scaled)
    drawn = jax.random.categorical(jax.random.fold_in(how.keys, position), kept)
    return jnp.where(how.temperature < MIN_TEMPERATURE, jnp.argmax(logits), drawn)

  def choose(logits: Array, position: Array) -> Array:
    return jax.vmap(choose_one, in_axes=(0, 0, None))(logits, how, position)

  return choose


def keep_top_k(logits: Array, k: int) -> Array:
  """[..., V] with all but the k greatest logits (and ties of the last) out of reach.

  By a sort: `lax.top_k` does not survive the export to a TensorFlow SavedModel.
  """
  k = min(k, logits.shape[-1])
  least = jnp.sort(logits, axis=-1)[..., -k, None]
  return jnp.where(logits < least, _NEVER, logits)


def keep_top_p(logits: Array, p: float | Array) -> Array:
  """[..., V] with all logits out of reach but the fewest whose probability is at least p."""
  falling = jnp.sort(logits, axis=-1)[..., ::-1]
  total = jnp.cumsum(jax.nn.softmax(falling, axis=-1), axis=-1)
  # Rounding may leave the whole sum below p = 1; then every token stays.
  last = jnp.minimum(jnp.sum(total < p, axis=-1, keepdims=True), logits.shape[-1] - 1)
  return jnp.where(logits < jnp.take_along_axis(falling, last, axis=-1), _NEVER, logits)


def decode(
  model: Prompted,
  variables: Variables,
  encoder_input_tokens: Array,
  max_len: int,
  choose: Choose,
  eos_id: int = 1,
  features: Features | None = None,
  limits: Array | None = None,
  tell: Callable[[Array, Array], None] | None = None,
) -> Decoded:
  """Decodes with a cache until every row has ended or has `max_len` tokens.

  `choose` takes the logits of a position and the position's number; `limits` are int32[B] most
  tokens of each row, at most `max_len`, or None; `tell` is traced with each position and its
  tokens, int32[] and int32[B], for what it does with them on the host; other arguments as in
  `greedy`.
  """
  encoded = model.apply(variables, encoder_input_tokens, features=features, method='encode')
  logits, cache = model.apply(variables, encoded, max_len, method='start_cache')
  tokens = jnp.zeros((encoder_input_tokens.shape[0], max_len), jnp.int32)

  def advance(state: _State, logits: Array) -> _State:
    chosen = choose(logits, state.step).astype(jnp.int32)
    token = jnp.where(state.ended, 0, chosen)
    if tell is not None:
      tell(state.step, token)
    gained = jnp.take_along_axis(jax.nn.log_softmax(logits), chosen[:, None], axis=1)[:, 0]
    return state._replace(
      step=state.step + 1,
      tokens=jax.lax.dynamic_update_slice(state.tokens, token[:, None], (0, state.step)),
      token=token,
      ended=state.ended | (token == eos_id) | (limits is not None and state.step + 1 >= limits),
      log_probs=state.log_probs + jnp.where(state.ended, 0.0, gained),
    )

  def go_on(state: _State) -> Array:
    return (state.step < max_len) & ~jnp.all(state.ended)

  def step(state: _State) -> _State:
    logits, cache = model.apply(variables, encoded, state.token, state.cache, method='decode_step')
    return advance(state._replace(cache=cache), logits)

  none = jnp.zeros(tokens.shape[0], jnp.int32)
  state = _State(jnp.int32(0), tokens, none, none > 0, none.astype(jnp.float32), cache)
  state = jax.lax.while_loop(go_on, step, advance(state, logits))
  return Decoded(state.tokens, state.log_probs, state.step)


class _State(NamedTuple):
  """The loop's state: positions done, what was decoded, the last token, which rows ended."""

  step: Array
  tokens: Array
  token: Array
  ended: Array
  log_probs: Array
  cache: Any
