"""Each method's own equation: what it injects, and what that does to the model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import core

from prompt_jax.errors import UserError
from prompt_jax.injections import (
  Context,
  Dims,
  Injection,
  Injections,
  LayerEdit,
  Layout,
  Sizes,
)
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts import base, tables
from prompt_jax.prompts.initializers import FromArray, FromFile
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt, add_rows, replace_rows
from prompt_jax.prompts.methods.input.adept import ADePT
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.input.progressive import Progressive
from prompt_jax.prompts.methods.input.q_tuning import QTuning
from prompt_jax.prompts.methods.multitask.task_prompts import TaskPrompts
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.testing import tiny
from tests.shared import facts

P = 3
CONFIG = tiny.config()
L, H, N, D, _, F = CONFIG.sizes.stacks['encoder']
RNG = np.random.default_rng(0)


def normal(*shape):
  return RNG.normal(size=shape).astype(np.float32)


def plain(value):
  return tables.Plain(FromArray(value))


def inject(method, ctx=None):
  ctx = ctx or base.placeholder(method, CONFIG.sizes)
  return method.init_with_output(jax.random.key(0), ctx)


@functools.lru_cache(None)
def backbone():
  """Random weights of the tiny T5."""
  init = jax.jit(PromptedT5(T5(CONFIG), None).init)
  return init(jax.random.key(0), tiny.batch())['params']['backbone']


def apply(method, tokens, *, injections=None, targets=None, params=None):
  """The states and the logits of the tiny model."""
  model = PromptedT5(T5(CONFIG), method)

  def both(model):
    encoded = model.encode(tokens, injections=injections)
    return encoded.states, None if targets is None else model.decode(encoded, targets)

  variables = {'params': {'backbone': backbone(), 'prompt': params or {}}}
  return jax.jit(lambda v: model.apply(v, method=both))(variables)


def test_input_prompt_puts_its_rows_where_it_says():
  value = normal(P, H)
  method = InputPrompt(P, plain(value), placement='after_eos', sees_input=False)
  got, variables = inject(method)
  np.testing.assert_array_equal(got.encoder.prefix, value[None])
  assert (got.encoder.placement, got.encoder.sees_input) == ('after_eos', False)
  assert got.decoder == Injection()
  assert got.cross == Injection()
  assert variables['params'].keys() == {'encoder'}
  assert variables['params']['encoder'].keys() == {'prompt'}  # the reference's name


def test_input_prompt_of_both_stacks_trains_two_tables():
  method = InputPrompt(P, tables.Plain(), decoder=True, decoder_placement='after_bos')
  got, variables = inject(method)
  params = variables['params']
  assert params.keys() == {'encoder', 'decoder'}
  assert not np.array_equal(params['encoder']['prompt'], params['decoder']['prompt'])
  np.testing.assert_array_equal(got.decoder.prefix[0], params['decoder']['prompt'])
  assert got.decoder.placement == 'after_bos'
  only = inject(InputPrompt(P, encoder=False, decoder=True))[1]['params']
  assert only.keys() == {'decoder'}


def test_a_prompt_of_token_embeddings_is_those_tokens_in_the_input():
  tokens = jnp.asarray([[9, 8, 7, 6, 5, 1]])
  table = backbone()['token_embedder']['embedding']
  bare = apply(None, tokens)[0]
  for placement, cut in (('before', 0), ('after_bos', 1), ('before_eos', 2), ('after_eos', 3)):
    rest = jnp.delete(tokens, slice(cut, cut + P), axis=1)
    method = InputPrompt(P, plain(np.asarray(table[tokens[0, cut : cut + P]])), placement)
    params = inject(method)[1]['params']
    np.testing.assert_allclose(apply(method, rest, params=params)[0], bare, atol=1e-5)


def test_progressive_puts_the_new_rows_before_those_of_earlier_tasks(tmp_path):
  earlier, value = normal(2 * P, H), normal(P, H)
  np.save(tmp_path / 'rows.npy', earlier)
  first_rows = FromFile(str(tmp_path / 'rows.npy'))
  method = Progressive(P, 2 * P, first_rows, plain(value), 'after_bos')
  got, variables = inject(method)
  np.testing.assert_array_equal(got.encoder.prefix, [np.concatenate([value, earlier])])
  assert got.encoder.placement == 'after_bos'
  assert jax.tree.map(np.shape, variables['params']) == {'encoder': {'prompt': (P, H)}}
  (tmp_path / 'rows.npy').unlink()  # the prompt's own file has them
  again = base.materialise(method, variables['params'], variables['constants'], CONFIG.sizes)
  np.testing.assert_array_equal(again.encoder.prefix, got.encoder.prefix)
  first, alone = inject(Progressive(P, table=plain(value)))
  np.testing.assert_array_equal(first.encoder.prefix, [value])
  assert 'constants' not in alone


def test_q_tuning_weighs_the_rows_of_earlier_tasks():
  earlier, value = normal(2 * P, H), normal(P, H)
  method = QTuning(P, 2 * P, FromArray(earlier), plain(value))
  first, variables = inject(method)
  progressive, _ = inject(Progressive(P, 2 * P, FromArray(earlier), plain(value)))
  # Of ones the same rows, the new ones last.
  want = np.roll(progressive.encoder.prefix, -P, axis=1)
  np.testing.assert_array_equal(first.encoder.prefix, want)
  u, v = normal(2 * P, 1), normal(1, H)
  params = {**variables['params'], 'rows': u, 'columns': v}
  got = base.materialise(method, params, variables['constants'], CONFIG.sizes).encoder.prefix
  np.testing.assert_allclose(got[0], np.concatenate([u @ v * earlier, value]), rtol=1e-5)
  assert inject(QTuning(P, table=plain(value)))[1]['params'].keys() == {'encoder'}


def test_q_tuning_keeps_a_queue_of_its_length_and_what_so_many_rows_can_span():
  earlier = (normal(8, P) @ normal(P, H)).astype(np.float32)  # of rank P
  for most, shape in ((P, (P, H)), (5, (5, H)), (8, (8, H))):
    method = QTuning(P, 8, FromArray(earlier), plain(normal(P, H)), queue=most)
    kept = np.asarray(inject(method)[1]['constants']['earlier'])
    assert kept.shape == shape
    q, _ = np.linalg.qr(kept[:P].T if most < 8 else kept.T)
    np.testing.assert_allclose(earlier @ q @ q.T, earlier, atol=1e-4)
  with pytest.raises(UserError, match=facts('QTuning.queue', '0')):
    inject(QTuning(P, queue=0))


def test_adept_moves_every_token_by_the_same_network():
  batch = tiny.batch()
  x = normal(3, 9, H)
  ctx = Context(
    tokens=batch.encoder_input_tokens,
    embeds=jnp.asarray(x),
    mask=batch.encoder_input_tokens > 0,
    stacks=CONFIG.sizes.stacks,
  )
  value = normal(P, H)
  method = ADePT(P, 4, plain(value))
  got, variables = inject(method, ctx)
  params = variables['params']
  np.testing.assert_array_equal(got.encoder.prefix[0], value)
  assert not np.any(got.encoder.delta)  # it starts as prompt tuning
  down = params['down']['kernel']
  assert down.shape == (H, 4)
  np.testing.assert_allclose([down.min(), down.max()], [-0.5, 0.5], atol=0.03)  # 1/sqrt(4)
  assert not any(np.any(b) for b in (params['down']['bias'], params['up']['bias']))
  w1, b1, w2, b2 = normal(H, 4), normal(4), normal(4, H), normal(H)
  params = {
    **params,
    'down': {'kernel': w1, 'bias': b1},
    'up': {'kernel': w2, 'bias': b2},
  }
  delta = method.apply({'params': params}, ctx).encoder.delta
  np.testing.assert_allclose(delta, np.maximum(x @ w1 + b1, 0) @ w2 + b2, rtol=1e-4, atol=1e-4)


def test_adept_counts_the_parameters_of_the_paper():
  dims = Dims(L=12, H=768, N=12, D=64, kv_heads=12, F=3072)
  model = Sizes(core.FrozenDict(encoder=dims, decoder=dims), 'encoder')
  shapes = jax.eval_shape(lambda key: base.first_values(ADePT(), key, model), jax.random.key(0))[1]
  sizes = [leaf.size for leaf in jax.tree.leaves(shapes['params'])]
  assert sum(sizes) == 60 * 768 + 2 * 768 * 19 + 19 + 768 == 76051


def test_prefix_rows_are_heads_of_keys_then_values():
  value = normal(L, 2, P, N * D)
  got, variables = inject(PrefixTuning(P, plain(value), kv_bias='shifted'))
  assert variables['params'].keys() == {'encoder', 'decoder', 'cross'}
  want = value.reshape(L, 2, 1, P, N, D)
  for name in ('encoder', 'decoder', 'cross'):
    injection = getattr(got, name)
    np.testing.assert_array_equal(injection.kv, want)
    assert injection.kv_bias == 'shifted'
  some = inject(PrefixTuning(P, encoder=False, decoder=False))
  assert some[1]['params'].keys() == {'cross'}
  assert some[0].encoder.kv is None
  assert some[0].decoder.kv is None


def test_prefix_sizes_follow_each_stack():
  stacks = core.FrozenDict(encoder=Dims(5, H, N, D, N, F), decoder=Dims(2, H, N, D, N, F))
  ctx = base.placeholder(PrefixTuning(P), Sizes(stacks, 'encoder'))
  got = jax.eval_shape(PrefixTuning(P).init_with_output, jax.random.key(0), ctx)[0]
  assert got.encoder.kv.shape == (5, 2, 1, P, N, D)
  assert got.decoder.kv.shape == got.cross.kv.shape == (2, 2, 1, P, N, D)


def test_keys_and_values_of_earlier_tokens_continue_a_decoder():
  """With the "shifted" bias, a prefix made of a text's own keys and values is that text."""
  inputs, targets = jnp.asarray([[9, 8, 1]]), jnp.asarray([[0, 4, 5, 6, 7, 8]])
  model = PromptedT5(T5(CONFIG), None)

  def run(model):
    encoded = model.encode(inputs)
    _, cache = model.start_cache(encoded, 6)
    for i in range(1, P):
      _, cache = model.decode_step(encoded, targets[:, i], cache)
    kv = jnp.stack([cache.own.keys, cache.own.values], axis=1)[:, :, :, :P]
    return kv, model.decode(encoded, targets)

  kv, whole = jax.jit(lambda p: model.apply({'params': {'backbone': p}}, method=run))(backbone())
  value = np.asarray(kv).reshape(L, 2, P, N * D)
  for kv_bias in ('shifted', 'zero'):
    method = PrefixTuning(P, plain(value), encoder=False, cross=False, kv_bias=kv_bias)
    params = inject(method)[1]['params']
    rest = apply(method, inputs, targets=targets[:, P:], params=params)[1]
    if kv_bias == 'shifted':
      np.testing.assert_allclose(rest, whole[:, P:], atol=1e-4)
    else:
      assert np.abs(rest - whole[:, P:]).max() > 1e-3


@pytest.mark.parametrize('slot', [[[0, 1, 2, -1, -1]], [[-1, 0, 1, 2, -1], [-1, -1, -1, 0, 1]]])
def test_deep_rows_go_to_their_slots(slot):
  """Also slots that differ by example or hold several prompts, as in packed rows."""
  x, rows, slot = normal(2, 5, H), normal(P, H), np.array(slot)
  layout = Layout(mask=jnp.ones((2, 5), bool), slot=jnp.asarray(slot))
  replaced, added = replace_rows(rows, x, layout), add_rows(rows, x, layout)
  for b, s in np.ndindex(2, 5):
    at = slot[b % len(slot), s]
    np.testing.assert_allclose(replaced[b, s], x[b, s] if at < 0 else rows[at])
    np.testing.assert_allclose(added[b, s], x[b, s] + (0 if at < 0 else rows[at]))
  for edit in (replace_rows, add_rows):
    np.testing.assert_array_equal(edit(rows, x, Layout(mask=layout.mask)), x)
    assert edit(rows, jnp.asarray(x, jnp.bfloat16), layout).dtype == jnp.bfloat16


def test_deep_prompt_starts_with_the_first_layers_rows_in_both_modes():
  value = normal(L, P, H)
  replace = inject(DeepPrompt(P, plain(value)))[0].encoder
  add = inject(DeepPrompt(P, plain(value), mode='add'))[0].encoder
  for injection in (replace, add):
    np.testing.assert_array_equal(injection.prefix, value[:1])
  np.testing.assert_array_equal(replace.hidden.theta, value)
  np.testing.assert_array_equal(add.hidden.theta, [np.zeros((P, H)), *value[1:]])
  both = inject(DeepPrompt(P, decoder=True, placement='after_bos', sees_input=False))
  assert both[1]['params'].keys() == {'encoder', 'decoder'}
  assert (both[0].encoder.placement, both[0].encoder.sees_input) == ('after_bos', False)
  assert (both[0].decoder.placement, both[0].decoder.sees_input) == ('before', True)


def states_before_each_layer(tokens):
  """float32[L, B, T, H] of the bare encoder."""
  seen = {}

  def watch(layer, x, layout):
    jax.debug.callback(lambda l, x: seen.update({int(l): np.asarray(x)}), layer, x)
    return x

  edit = LayerEdit(theta=jnp.arange(L), fn=watch)
  jax.block_until_ready(apply(None, tokens, injections=Injections(encoder=Injection(hidden=edit))))
  jax.effects_barrier()
  return np.stack([seen[l] for l in range(L)])


@pytest.mark.parametrize('placement', ['before', 'after_bos'])
def test_deep_rows_that_are_a_texts_own_states_are_that_text(placement):
  tokens = jnp.asarray([[9, 8, 7, 6, 5, 1]])
  cut = slice(0, P) if placement == 'before' else slice(1, 1 + P)
  states = states_before_each_layer(tokens)[:, 0, cut]
  rest = jnp.delete(tokens, cut, axis=1)
  bare = apply(None, tokens)[0]
  method = DeepPrompt(P, plain(states), placement)
  params = inject(method)[1]['params']
  np.testing.assert_allclose(apply(method, rest, params=params)[0], bare, atol=1e-4)
  # Rows that add nothing after the first layer are an input prompt.
  only_first = plain(np.concatenate([states[:1], np.zeros_like(states[1:])]))
  method = DeepPrompt(P, only_first, placement, mode='add')
  params = inject(method)[1]['params']
  np.testing.assert_allclose(apply(method, rest, params=params)[0], bare, atol=1e-4)


@pytest.mark.parametrize(
  ('method', 'match'),
  [
    (InputPrompt(0), facts('InputPrompt.length', '0')),
    (ADePT(-1), facts('ADePT.length', '-1')),
    (ADePT(rank=0), facts('ADePT.rank', '0')),
    (DeepPrompt(0), facts('DeepPrompt.length', '0')),
    (PrefixTuning(0), facts('PrefixTuning.length', '0')),
    (InputPrompt(encoder=False), facts('InputPrompt', 'both')),
    (DeepPrompt(encoder=False), facts('DeepPrompt', 'both')),
    (PrefixTuning(encoder=False, decoder=False, cross=False), facts('PrefixTuning', 'everywhere')),
    (InputPrompt(placement='end'), facts('placement', "'end'", 'before', 'after_bos')),
    (InputPrompt(decoder_placement='after_eos'), facts('decoder_placement', "'after_eos'")),
    (DeepPrompt(placement='end'), facts('placement', "'end'")),
    (DeepPrompt(mode='mix'), facts('mode', "'mix'", 'replace', 'add')),
    (InputPrompt(seen_by='tokens'), facts('seen_by', "'tokens'", 'prompt', 'none')),
    (Progressive(earlier=-1), facts('Progressive.earlier', '-1')),
    (PrefixTuning(kv_bias='none'), facts('kv_bias', "'none'", 'zero', 'shifted')),
  ],
  ids=str,
)
def test_what_makes_no_sense_is_refused(method, match):
  with pytest.raises(UserError, match=match):
    inject(method)


def test_task_prompts_puts_the_shared_rows_and_those_of_the_task():
  own, shared = normal(4, P, H), normal(2, H)
  method = TaskPrompts(tasks=4, length=P, shared=2)
  ids = np.array([3, 0, 3], np.int32)
  ctx = base.placeholder(method, CONFIG.sizes).replace(features={'task_id': ids})
  params = {'tasks': {'prompt': own}, 'shared': {'prompt': shared}}
  found = method.apply({'params': params}, ctx).encoder.prefix
  want = np.stack([np.concatenate([shared, own[k]]) for k in ids])
  np.testing.assert_array_equal(found, want)
  alone = TaskPrompts(tasks=4, length=P)
  found = alone.apply({'params': {'tasks': {'prompt': own}}}, ctx).encoder.prefix
  np.testing.assert_array_equal(found, own[ids])
  for wrong, says in (
    ({'tasks': 0}, facts('tasks', '0')),
    ({'length': 0}, facts('length', '0')),
    ({'shared': -1}, facts('shared', '-1')),
    ({'placement': 'x'}, facts('placement', 'before')),
  ):
    with pytest.raises(UserError, match=says):
      inject(method.clone(**wrong), ctx)


@pytest.mark.parametrize(
  'method',
  [DeepPrompt(P, mode='add'), DeepPrompt(P), InputPrompt(P), PrefixTuning(P)],
  ids=['deep_add', 'deep', 'input', 'prefix'],
)
def test_a_file_s_numpy_arrays_are_parameters(method):
  found, variables = inject(method)
  own = jax.device_get(variables)
  again = base.materialise(method, own['params'], own.get('constants', {}), CONFIG.sizes)
  jax.tree.map(np.testing.assert_array_equal, again, found)
