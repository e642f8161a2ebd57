"""Cached decoding against teacher forcing run again for every token, and sampling's rules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.errors import UserError
from prompt_jax.inference import decode

MAX_LEN = 9


def _run(function, model, variables, *args, **options):
  return jax.jit(functools.partial(function, model, **options))(variables, *args)


def _greedy_by_teacher_forcing(model, variables, inputs, max_len, eos_id):
  """One full pass over the targets for each new token; rows stop at eos."""

  def forward(v, x, t):
    encoded = model.apply(v, x, method='encode')
    return model.apply(v, encoded, t, method='decode')

  forward = jax.jit(forward)
  given = np.zeros((len(inputs), max_len + 1), np.int32)
  total = np.zeros(len(inputs))
  for row in range(max_len):
    logits = np.asarray(forward(variables, inputs, given[:, :-1]), np.float64)[:, row]
    ended = (given == eos_id).any(1)
    given[:, row + 1] = np.where(ended, 0, logits.argmax(-1))
    logp = logits.max(-1) - np.log(np.exp(logits).sum(-1))
    total += np.where(ended, 0, logp)
  return given[:, 1:], total


def _frequent_token(model, variables, inputs):
  """A token that greedy decoding writes early in some rows: used as the end of sequence."""
  tokens = np.asarray(_run(decode.greedy, model, variables, inputs, max_len=MAX_LEN, eos_id=-1))
  ids, counts = np.unique(tokens[:, 1:5], return_counts=True)
  return int(ids[counts.argmax()])


def test_greedy_is_the_argmax_of_teacher_forcing_and_rows_end(tiny, inputs):
  model, variables = tiny
  eos = _frequent_token(model, variables, inputs)
  got = _run(
    decode.decode,
    model,
    variables,
    inputs,
    max_len=MAX_LEN,
    choose=decode.most_probable,
    eos_id=eos,
  )
  tokens, log_probs = _greedy_by_teacher_forcing(model, variables, inputs, MAX_LEN, eos)
  assert (tokens == eos).any(1).sum() >= 2, 'the case must have rows that end'
  np.testing.assert_array_equal(got.tokens, tokens)
  np.testing.assert_allclose(got.log_probs, log_probs, atol=1e-4)


def test_decoding_stops_when_every_row_has_ended(prompted, inputs):
  model, variables = prompted
  row = inputs[:1]
  eos = _frequent_token(model, variables, row)
  run = functools.partial(_run, decode.decode, model, variables, row, choose=decode.most_probable)
  short, long = run(max_len=MAX_LEN, eos_id=eos), run(max_len=40, eos_id=eos)
  ends_at = np.asarray(short.tokens)[0].tolist().index(eos) + 1
  assert ends_at < MAX_LEN
  assert short.steps == long.steps == ends_at
  assert run(max_len=MAX_LEN, eos_id=-1).steps == MAX_LEN


def test_padding_changes_no_token(prompted, inputs):
  model, variables = prompted
  padded = np.pad(inputs, ((0, 0), (0, 5)))
  run = functools.partial(_run, decode.greedy, model, variables, max_len=5, eos_id=-1)
  np.testing.assert_array_equal(run(inputs), run(padded))


def test_one_target_position_needs_no_cached_step(prompted, inputs):
  model, variables = prompted
  run = functools.partial(_run, decode.greedy, model, variables, inputs, eos_id=-1)
  np.testing.assert_array_equal(run(max_len=1), run(max_len=3)[:, :1])


@pytest.mark.parametrize('options', [{'temperature': 0.0}, {'top_k': 1}, {'top_p': 1e-6}])
def test_sampling_without_choice_is_greedy(prompted, inputs, options):
  model, variables = prompted
  got = _run(
    decode.sample, model, variables, inputs, key=jax.random.key(3), max_len=5, eos_id=-1, **options
  )
  want = _run(decode.greedy, model, variables, inputs, max_len=5, eos_id=-1)
  np.testing.assert_array_equal(got.tokens, want)


def test_samples_follow_the_tempered_distribution_and_the_key(prompted, inputs):
  model, variables = prompted
  row, temperature = inputs[:1], 2.0

  @jax.jit
  def draw(keys):
    one = lambda key: decode.sample(
      model, variables, row, 2, key, temperature=temperature, eos_id=-1
    )
    return jax.vmap(one)(keys)

  keys = jax.random.split(jax.random.key(0), 4000)
  tokens = np.asarray(draw(keys).tokens)[:, 0]
  np.testing.assert_array_equal(draw(keys).tokens[:, 0], tokens)
  encoded = model.apply(variables, row, method='encode')
  logits, cache = model.apply(variables, encoded, 2, method='start_cache')
  _check_frequencies(tokens[:, 0], logits[0] / temperature)
  # The second token after the most frequent first one: not tied to it by the same noise.
  first = np.bincount(tokens[:, 0]).argmax()
  logits, _ = model.apply(variables, encoded, jnp.array([first]), cache, method='decode_step')
  _check_frequencies(tokens[tokens[:, 0] == first, 1], logits[0] / temperature)


def _check_frequencies(tokens, logits):
  """Each token's frequency is within five standard errors of its probability."""
  want = np.asarray(jax.nn.softmax(logits))
  got = np.bincount(tokens, minlength=len(want)) / len(tokens)
  assert (np.abs(got - want) < 5 * np.sqrt(want * (1 - want) / len(tokens)) + 1e-3).all()


def test_log_probs_of_samples_are_the_models_own(prompted, inputs):
  from prompt_jax.inference import score

  model, variables = prompted
  got = _run(
    decode.sample, model, variables, inputs, key=jax.random.key(1), max_len=6, top_k=4, eos_id=7
  )
  want = _run(score.score, model, variables, inputs, got.tokens)
  np.testing.assert_allclose(got.log_probs, want, atol=1e-4)


# Of one length, so that each function compiles once.
LOGITS = st.lists(st.integers(-20, 20), min_size=8, max_size=8).map(
  lambda xs: np.array(xs, np.float32) / 4
)


kept_k = jax.jit(decode.keep_top_k, static_argnums=1)
kept_p = jax.jit(decode.keep_top_p)


@settings(deadline=None, max_examples=60)
@given(LOGITS, st.integers(1, 10))
def test_top_k_keeps_the_k_greatest_and_ties(logits, k):
  kept = np.asarray(kept_k(logits, k)) > -1e6
  at_least = np.sort(logits)[::-1][min(k, len(logits)) - 1]
  np.testing.assert_array_equal(kept, logits >= at_least)


@settings(deadline=None, max_examples=60)
@given(LOGITS, st.floats(0.01, 1.0))
def test_top_p_keeps_the_fewest_tokens_that_reach_p(logits, p):
  kept = np.asarray(kept_p(logits, p)) > -1e6
  prob = np.exp(logits.astype(np.float64))
  prob /= prob.sum()
  assert prob[kept].sum() >= p - 1e-5
  least = logits[kept].min()
  np.testing.assert_array_equal(kept, logits >= least)
  assert prob[logits > least].sum() < p + 1e-5, 'one value fewer would do'


@pytest.mark.parametrize('options', [{'top_k': 2, 'top_p': 0.5}, {'top_p': 1.5}, {'top_k': -1}])
def test_sampling_refuses_contradictions(prompted, inputs, options):
  model, variables = prompted
  with pytest.raises(UserError, match='top_k'):
    decode.sample(model, variables, inputs, 3, jax.random.key(0), **options)
