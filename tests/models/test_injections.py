"""What the model does with each injection, against a T5 restated in NumPy, and placements."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy_t5
import pytest
from reference_models import normal, reference, tokens

from prompt_jax.attach import attach
from prompt_jax.batch import Batch
from prompt_jax.injections import PLACEMENTS, Injection, Injections, Layout

P = 3
LENGTHS = (8, 5, 2)
TARGETS = 4


@functools.cache
def compiled():
  """States, their mask and logits for any injections."""
  ref = reference('t5_1_1')
  model = ref.model()

  @jax.jit
  def run(params, added, inputs, targets):
    apply = functools.partial(model.apply, {'params': {'backbone': params}})
    encoded = apply(inputs, injections=added, method='encode')
    return encoded.states, encoded.layout, apply(encoded, targets, method='decode')

  return ref, functools.partial(run, ref.params)


@functools.cache
def encoder_only():
  """As `compiled`, without the decoder: cheaper to compile for many placements."""
  ref = reference('t5_1_1')
  apply = ref.model().apply

  @jax.jit
  def run(params, added, inputs):
    variables = {'params': {'backbone': params}}
    encoded = apply(variables, inputs, injections=added, method='encode')
    return encoded.all_states, encoded.layout

  return ref, functools.partial(run, ref.params)


def inputs_and_targets(cfg):
  targets = tokens(1, (TARGETS,) * len(LENGTHS), cfg.vocab_size, eos=False)
  targets[:, 0] = 0
  return tokens(0, LENGTHS, cfg.vocab_size), targets


def kv(seed: int, cfg, layers: int, rows: int = P):
  return normal(seed, layers, 2, 1, rows, cfg.num_heads, cfg.head_dim)


@pytest.mark.parametrize('convention', ['zero', 'shifted'])
def test_keys_and_values_of_all_three_attentions(convention):
  """`shifted` gives the injected keys positions -P..-1, `zero` gives them no bias."""
  ref, run = compiled()
  cfg = ref.cfg
  encoder, decoder = kv(2, cfg, cfg.num_encoder_layers), kv(3, cfg, cfg.num_decoder_layers, 2)
  cross = kv(4, cfg, cfg.num_decoder_layers, 4)
  added = Injections(
    encoder=Injection(kv=encoder, kv_bias=convention),
    decoder=Injection(kv=decoder, kv_bias=convention),
    cross=Injection(kv=cross),
  )
  inputs, targets = inputs_and_targets(cfg)
  states, _, logits = run(added, inputs, targets)
  table = np.asarray(ref.params['token_embedder']['embedding'])
  for i, n in enumerate(LENGTHS):
    want = numpy_t5.encode(
      ref.params['encoder'], table[inputs[i, :n]], encoder[:, :, 0], convention
    )
    np.testing.assert_allclose(states[i, :n], want, atol=1e-5)
    want = numpy_t5.decode(
      ref.params['decoder'], table[targets[i]], want, decoder[:, :, 0], cross[:, :, 0], convention
    )
    np.testing.assert_allclose(logits[i], want, atol=1e-5)


def place(rows, tokens, placement: str) -> tuple[np.ndarray, np.ndarray]:
  """The prompt among the n real tokens of one example, and which positions are the prompt's."""
  n = len(tokens)
  k = {'before': 0, 'after_bos': 1, 'before_eos': n - 1, 'after_eos': n}[placement]
  slots = np.r_[np.full(k, -1), np.arange(len(rows)), np.full(n - k, -1)]
  return np.concatenate([tokens[:k], rows, tokens[k:]]), slots


@pytest.mark.parametrize('placement', PLACEMENTS)
@pytest.mark.parametrize('per_example', [False, True])
def test_attach_puts_rows_where_placement_says(placement, per_example):
  b, t, h = 4, 6, 5
  x, lengths = normal(0, b, t, h), (6, 4, 2, 1)
  rows = normal(1, b if per_example else 1, P, h)
  mask = np.arange(t) < np.array(lengths)[:, None]
  delta = normal(2, 1, t, h)
  added = Injection(prefix=rows, delta=delta, placement=placement)
  got, layout = attach(added, x, Layout(mask=jnp.asarray(mask)))
  assert got.shape == (b, t + P, h)
  for i, n in enumerate(lengths):
    own = rows[i if per_example else 0]
    want, slots = place(own, np.asarray(x + delta)[i, :n], placement)
    np.testing.assert_array_equal(got[i, : n + P], want)
    np.testing.assert_array_equal(layout.mask[i], np.arange(t + P) < n + P)
    np.testing.assert_array_equal(jnp.broadcast_to(layout.slot, (b, t + P))[i, : n + P], slots)
    assert (jnp.broadcast_to(layout.slot, (b, t + P))[i, n + P :] == -1).all()


def in_order(states, layout, i: int, n: int):
  """[P + n, H] states of example i, prompt rows at their places."""
  if len(states) == 1:
    return states[0][i, : P + n]
  rows, tokens = states
  own = np.broadcast_to(layout.positions, tokens.shape[:2])[i, :n]
  first = np.unique(own - np.broadcast_to(layout.from_prompt, tokens.shape[:2])[i, :n])
  found = np.full((P + n, tokens.shape[2]), np.nan)
  found[own], found[first[0] + np.arange(P)] = tokens[i, :n], rows[0]
  assert len(first) == 1
  return found


@pytest.mark.parametrize('placement', PLACEMENTS)
@pytest.mark.parametrize('sees_input', [True, False])
def test_encoder_with_a_placed_prompt(placement, sees_input):
  """Positions and visibility of prompt rows, padding in the batch."""
  ref, run = encoder_only()
  cfg = ref.cfg
  rows = normal(5, 1, P, cfg.emb_dim)
  added = Injections(encoder=Injection(prefix=rows, placement=placement, sees_input=sees_input))
  inputs, _ = inputs_and_targets(cfg)
  states, layout = run(added, inputs)
  table = np.asarray(ref.params['token_embedder']['embedding'])
  none = np.zeros((cfg.num_encoder_layers, 2, 0, cfg.num_heads, cfg.head_dim))
  for i, n in enumerate(LENGTHS):
    x, slots = place(np.asarray(rows[0]), table[inputs[i, :n]], placement)
    if placement == 'before_eos':
      assert inputs[i, n - 1] == 1
      np.testing.assert_array_equal(x[-1], table[1])  # EOS is last, after the prompt
    visible = np.ones((n + P, n + P), bool)
    if not sees_input:
      visible[np.ix_(slots >= 0, slots < 0)] = False
    want = numpy_t5.encode(ref.params['encoder'], x, none, visible=visible)
    np.testing.assert_allclose(in_order(states, layout, i, n), want, atol=1e-5)
    among = n + P if sees_input else n
    np.testing.assert_array_equal(layout.mask[i], np.arange(states[-1].shape[1]) < among)


@pytest.mark.parametrize('placement', ['before', 'before_eos'])
@pytest.mark.parametrize(
  ('seen_by', 'sees_input'), [('none', True), ('prompt', True), ('prompt', False)]
)
def test_encoder_with_rows_that_no_token_sees(placement, seen_by, sees_input):
  ref, run = encoder_only()
  cfg = ref.cfg
  rows = normal(5, 1, P, cfg.emb_dim)
  added = Injection(prefix=rows, placement=placement, seen_by=seen_by, sees_input=sees_input)
  inputs, _ = inputs_and_targets(cfg)
  states, _ = run(Injections(encoder=added), inputs)
  bare, _ = run(Injections(), inputs)
  table = np.asarray(ref.params['token_embedder']['embedding'])
  none = np.zeros((cfg.num_encoder_layers, 2, 0, cfg.num_heads, cfg.head_dim))
  for i, n in enumerate(LENGTHS):
    x, slots = place(np.asarray(rows[0]), table[inputs[i, :n]], placement)
    visible = np.ones((n + P, n + P), bool)
    visible[np.ix_(slots < 0, slots >= 0)] = False
    if seen_by == 'none':
      visible[:, slots >= 0] = False
    if not sees_input:
      visible[np.ix_(slots >= 0, slots < 0)] = False
    want = numpy_t5.encode(ref.params['encoder'], x, none, visible=visible)
    np.testing.assert_allclose(states[-1][i, : n + P], want, atol=1e-5)
    if placement == 'before':  # the tokens have the states of the model without a prompt
      np.testing.assert_allclose(states[-1][i, P : n + P], bare[-1][i, :n], atol=1e-5)


def test_rows_that_no_token_sees_in_packed_rows():
  """Of two examples in a row, each has its own rows."""
  ref, run = encoder_only()
  added = Injection(prefix=normal(5, 1, P, ref.cfg.emb_dim), seen_by='none')
  inputs, _ = inputs_and_targets(ref.cfg)
  alone = run(Injections(encoder=added), inputs)[0][-1]
  n, m = LENGTHS[:2]
  joined = [*[0] * P, *inputs[0, :n], *[0] * P, *inputs[1, :m]]
  slot = [*range(P), *[-1] * n, *range(P), *[-1] * m]
  segments = np.repeat([1, 2], [P + n, P + m])
  positions = [*range(P + n), *range(P + m)]
  packed = Batch(*(jnp.asarray([joined]),) * 4).replace(
    encoder_segment_ids=jnp.asarray([segments]),
    encoder_positions=jnp.asarray([positions]),
    prompt_slot=jnp.asarray([slot]),
  )
  encode = lambda m: m._encode(packed, Injections(encoder=added), True).states
  found = ref.model().apply({'params': {'backbone': ref.params}}, method=encode)[0]
  np.testing.assert_allclose(found[: P + n], alone[0, : P + n], atol=1e-5)
  np.testing.assert_allclose(found[P + n :], alone[1, : P + m], atol=1e-5)


def test_states_of_a_prompt_that_sees_no_input_do_not_depend_on_it():
  ref, run = encoder_only()
  inputs, _ = inputs_and_targets(ref.cfg)
  other = tokens(9, LENGTHS[::-1], ref.cfg.vocab_size)
  spread = {}
  for sees_input in (False, True):
    prefix = Injection(prefix=normal(5, 1, P, ref.cfg.emb_dim), sees_input=sees_input)
    states = [run(Injections(encoder=prefix), x)[0][0][:, :P] for x in (inputs, other)]
    spread[sees_input] = np.ptp(np.concatenate(states), axis=0).max()
  assert spread[False] < 1e-5
  assert spread[True] > 0.1


def test_padding_changes_nothing():
  ref, run = compiled()
  cfg = ref.cfg
  added = Injections(
    encoder=Injection(
      prefix=normal(5, 1, P, cfg.emb_dim),
      kv=kv(2, cfg, cfg.num_encoder_layers),
      placement='before_eos',
    ),
    cross=Injection(kv=kv(4, cfg, cfg.num_decoder_layers)),
  )
  inputs, targets = inputs_and_targets(cfg)
  states, _, logits = run(added, inputs, targets)
  wider = np.pad(inputs, ((0, 0), (0, 7)))
  wider_states, _, wider_logits = run(added, wider, np.pad(targets, ((0, 0), (0, 3))))
  for i, n in enumerate(LENGTHS):
    np.testing.assert_allclose(wider_states[i, : n + P], states[i, : n + P], atol=1e-5)
  np.testing.assert_allclose(wider_logits[:, :TARGETS], logits, atol=1e-5)
