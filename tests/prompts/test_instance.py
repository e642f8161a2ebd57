"""Equations of the methods that read the input, and of those that share among tasks."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.injections import Context, features_of
from prompt_jax.prompts import base, tables
from prompt_jax.prompts.initializers import FromArray
from prompt_jax.prompts.methods.input.dept import DePT
from prompt_jax.prompts.methods.input.ept import EPT
from prompt_jax.prompts.methods.instance.id_spam import IDSPAM
from prompt_jax.prompts.methods.instance.idpg import IDPG
from prompt_jax.prompts.methods.instance.l2p import L2P
from prompt_jax.prompts.methods.instance.lopa import LoPA
from prompt_jax.prompts.methods.instance.smop import SMoP
from prompt_jax.prompts.methods.instance.spt import SPT
from prompt_jax.prompts.methods.multitask.attempt import Attempt
from prompt_jax.prompts.methods.multitask.mpt import MPT
from prompt_jax.testing import tiny
from tests.shared import facts

B, T, P = 3, 7, 4
CONFIG = tiny.config()
H = CONFIG.sizes.stacks['encoder'].H
RNG = np.random.default_rng(0)
MASK = np.arange(T)[None] < np.asarray([[7], [4], [1]])


def normal(*shape):
  return RNG.normal(size=shape).astype(np.float32)


EMBEDS, POOLED = normal(B, T, H), normal(B, H)


def context(method, **more):
  known = {'embeds': EMBEDS, 'mask': MASK, 'pooled': POOLED}
  read = {name: jnp.asarray(known[name]) for name in method.depends_on if name in known}
  read['features'] = dict.fromkeys(features_of(method), jnp.asarray([1, 0, 1]))
  return Context(**{**read, **more}, stacks=CONFIG.sizes.stacks)


def moved(method):
  """Its variables, with random parameters."""
  variables = method.init(jax.random.key(0), context(method))
  return jax.tree.map(lambda x: normal(*x.shape), variables['params'])


def apply(method, params, **more):
  return method.apply({'params': params}, context(method, **more))


def softmax(x):
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def dense(x, p):
  return x @ p['kernel'] + p['bias']


def masked_mean(x):
  return np.stack([row[there].mean(0) for row, there in zip(x, MASK, strict=True)])


def test_smop_takes_one_prompt_and_weighs_it():
  method = SMoP(P, prompts=3, balance=0.5)
  params = moved(method)
  # Each example's own direction for one of the prompts, so that they take different ones.
  params['router']['kernel'] = np.linalg.pinv(masked_mean(EMBEDS)).astype(np.float32)
  found = apply(method, params)
  shares = softmax(masked_mean(EMBEDS) @ params['router']['kernel'])
  best = shares.argmax(-1)
  assert len(set(best)) > 1  # or the test would not see who takes what
  rows = params['encoder']['prompt'][best]
  want = shares[np.arange(B), best][:, None, None] * rows
  np.testing.assert_allclose(found.encoder.prefix, want, rtol=1e-4, atol=1e-6)
  taken = np.bincount(best, minlength=3) / B
  loss = 0.5 * 3 * np.sum(taken * shares.mean(0))
  np.testing.assert_allclose(found.aux_loss, loss, rtol=1e-5)


def test_smop_draws_only_in_training():
  method = SMoP(P, prompts=3)
  params = moved(method)
  drawn = [
    method.apply(
      {'params': params},
      context(method, embeds=jnp.asarray(EMBEDS)).replace(train=train),
      rngs={'prompt': jax.random.key(seed)},
    ).encoder.prefix
    for train, seed in ((False, 0), (False, 1), (True, 0), (True, 1))
  ]
  np.testing.assert_array_equal(drawn[0], drawn[1])
  assert np.abs(drawn[2] - drawn[3]).max() > 1e-3


@pytest.mark.parametrize('terms', [1, 4])
def test_idpg_generates_rows_by_two_matrices(terms):
  method = IDPG(P, hidden=8, kronecker=terms)
  params = moved(method)

  def matrix(p):
    if terms == 1:
      return p['kernel']
    return sum(np.kron(a, b) for a, b in zip(p['left'], p['right'], strict=True))

  hidden = np.maximum(POOLED @ matrix(params['down']) + params['down']['bias'], 0)
  rows = (hidden @ matrix(params['up']) + params['up']['bias']).reshape(B, P, H)
  got = apply(method, params).encoder.prefix
  np.testing.assert_allclose(got, rows + params['encoder']['prompt'], rtol=1e-4, atol=1e-4)
  alone = apply(method.clone(shared=False), {k: params[k] for k in ('down', 'up')})
  np.testing.assert_allclose(alone.encoder.prefix, rows, rtol=1e-4, atol=1e-4)


def test_kronecker_products_have_fewer_numbers():
  count = lambda n: sum(x.size for x in jax.tree.leaves(moved(IDPG(P, hidden=8, kronecker=n))))
  shared, biases = P * H, 8 + P * H
  matrices = H * 8 + 8 * P * H
  assert count(1) == shared + biases + matrices
  assert count(4) == shared + biases + matrices // 4 + 2 * 4**3


def test_lopa_opens_a_part_of_every_row():
  method = LoPA(P, rank=2, hidden=6)
  params = jax.tree.map(lambda x: 0.3 * x, moved(method))
  gelu = lambda x: np.asarray(jax.nn.gelu(x))
  u = dense(gelu(dense(POOLED, params['rows_in'])), params['rows_out']).reshape(B, P, 2)
  v = dense(gelu(dense(POOLED, params['columns_in'])), params['columns_out']).reshape(B, H, 2)
  gate = 1 / (1 + np.exp(-np.einsum('bpr,bhr->bph', u, v)))
  want = params['encoder']['prompt'] * gate
  np.testing.assert_allclose(apply(method, params).encoder.prefix, want, rtol=1e-4, atol=1e-4)


def test_id_spam_attends_within_the_tokens_of_an_example():
  method = IDSPAM(P, hidden=6)
  params = jax.tree.map(lambda x: 0.3 * x, moved(method))
  want = []
  for x, there in zip(EMBEDS, MASK, strict=True):
    x = x[there]
    q, k, v = (x @ params[name]['kernel'] for name in ('query', 'key', 'value'))
    h = (softmax(q @ k.T / np.sqrt(H)) @ v).mean(0)
    want.append(dense(np.maximum(dense(h, params['down']), 0), params['up']).reshape(P, H))
  got = apply(method, params).encoder.prefix
  np.testing.assert_allclose(got, np.stack(want), rtol=1e-4, atol=1e-5)


def test_dept_changes_embeddings_by_their_position():
  method = DePT(P, rank=2, input_length=9)
  first = method.init_with_output(jax.random.key(0), context(method))[0]
  assert not np.any(first.encoder.delta)  # it starts as prompt tuning
  params = moved(method)
  got = apply(method, params).encoder
  change = 8 / np.sqrt(2) * (params['positions'] @ params['columns'])[:T]
  np.testing.assert_allclose(got.delta, change * MASK[..., None], rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(got.prefix[0], params['encoder']['prompt'])


def test_dept_counts_the_parameters_of_the_paper():
  assert 60 * 768 + 30 * (256 + 768) == 76_800  # as many as 100 plain rows of T5 base
  method = DePT(6, rank=3, input_length=26)
  assert sum(x.size for x in jax.tree.leaves(moved(method))) == 6 * H + 3 * (26 + H)


@pytest.mark.parametrize('projected', [False, True])
def test_ept_reads_the_change_and_adds_up_spaces(projected):
  method = EPT(P, rank=2, input_length=9, spaces=3, projected=projected, temperature=2.0)
  params = moved(method)
  got = apply(method, params).encoder
  rows, change = params['encoder']['prompt'], params['positions'] @ params['columns'] * 8 / 2**0.5
  np.testing.assert_allclose(got.delta, change[:T] * MASK[..., None], rtol=1e-4, atol=1e-4)
  names = ('query', 'key', 'value')
  query, key, value = (params[n] if projected else np.eye(H) for n in names)
  fused = rows + softmax(rows @ query @ (change @ key).T / np.sqrt(H)) @ (change @ value)
  shares = softmax(fused.mean(0) @ params['gate'] / 2)
  want = sum(g * fused @ w for g, w in zip(shares, params['spaces'], strict=True))
  np.testing.assert_allclose(got.prefix[0], want, rtol=1e-3, atol=1e-3)


def test_ept_begins_near_prompt_tuning_and_equal_spaces_are_one():
  method = EPT(P, rank=2, input_length=9, spaces=3)
  first, variables = method.init_with_output(jax.random.key(0), context(method))
  params = variables['params']
  rows = params['encoder']['prompt']
  away = np.linalg.norm(first.encoder.prefix[0] - rows) / np.linalg.norm(rows)
  assert 0 < away < 0.1
  assert not np.any(first.encoder.delta)
  params = moved(method) | {'spaces': np.stack([np.eye(H, dtype=np.float32)] * 3)}
  of_gate = [apply(method, params | {'gate': normal(H, 3)}).encoder.prefix for _ in range(2)]
  np.testing.assert_allclose(*of_gate, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('shared', [False, True])
def test_attempt_weighs_the_sources_and_adds_the_target(shared):
  sources = normal(2, P, H)
  method = Attempt(P, 2, hidden=3, temperature=5.0, shared=shared, tasks=2 if shared else 1,
                   initializer=FromArray(sources))  # fmt: skip
  variables = method.init(jax.random.key(0), context(method))
  first = np.asarray(variables['params']['target'])
  np.testing.assert_array_equal(first, np.stack([sources[0]] * len(first)))
  params, constants = moved(method), {'sources': sources}
  want = []
  for x, mask, task in zip(EMBEDS, MASK, [1, 0, 1], strict=True):
    target = params['target'][task if shared else 0]
    x = x[mask].max(0) @ params['down']['kernel']
    h = layer_norm(x / (1 + np.exp(-x)) @ params['up']['kernel'], params['norm'])
    every = np.stack([*constants['sources'], target])
    shares = softmax(every.max(1) @ h / 5)
    want.append(np.einsum('j,jph->ph', shares, every) + target)
  call = {'params': params, 'constants': constants}
  got = method.apply(call, context(method)).encoder.prefix
  np.testing.assert_allclose(got, np.stack(want), rtol=1e-4, atol=1e-4)


def test_attempt_takes_its_sources_from_a_file_and_has_the_authors_temperature(tmp_path):
  rows, files = normal(2, P, H), tuple(str(tmp_path / f'{k}.npy') for k in range(2))
  for file, of in zip(files, rows, strict=True):
    np.save(file, of)
  method = Attempt(P, 2, files=files)
  constants = method.init(jax.random.key(0), context(method))['constants']
  np.testing.assert_array_equal(constants['sources'], rows)
  call = {'params': moved(method), 'constants': constants}
  given = method.clone(temperature=math.e * H)
  np.testing.assert_array_equal(
    *(m.apply(call, context(m)).encoder.prefix for m in (method, given))
  )
  assert round(math.e * 768) == 2088  # of T5 base; 2087 there
  with pytest.raises(UserError, match=facts('2 files', '3')):
    moved(method.clone(sources=3))


def test_l2p_joins_the_prompts_of_the_nearest_keys_and_pulls_these():
  method = L2P(P, prompts=4, chosen=2, pull=0.5)
  params = moved(method)
  got = apply(method, params)
  unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
  near = unit(POOLED) @ unit(params['keys']).T
  which = np.argsort(-near, axis=1)[:, :2]
  want = params['encoder']['prompt'][which].reshape(B, 2 * P, H)
  np.testing.assert_array_equal(got.encoder.prefix, want)
  pull = -0.5 * np.take_along_axis(near, which, axis=1).mean()
  np.testing.assert_allclose(got.aux_loss, pull, rtol=1e-5)
  # Keys and prompts that no input takes get no gradient.
  value = lambda p: (found := apply(method, p)).aux_loss + jnp.sum(found.encoder.prefix**2)
  slopes, taken = jax.grad(value)(params), np.isin(np.arange(4), which)
  assert not taken.all() or len(np.unique(which)) == 4
  for leaf in (slopes['keys'], slopes['encoder']['prompt']):
    np.testing.assert_array_equal(np.any(leaf != 0, axis=tuple(range(1, leaf.ndim))), taken)


def test_spt_puts_the_retrieved_rows_before_those_of_the_task():
  method = SPT(P, prompts=3, memory=2)
  params = moved(method)
  bank, own = params['bank']['prompt'], params['encoder']['prompt']
  want = []
  for x, mask in zip(EMBEDS, MASK, strict=True):
    shares = softmax(bank.mean(1) @ x[mask].mean(0) / np.sqrt(H))
    best = shares.argmax()
    want.append(np.concatenate([shares[best] * bank[best], own]))
  np.testing.assert_allclose(apply(method, params).encoder.prefix, want, rtol=1e-4, atol=1e-5)
  slopes = jax.grad(lambda p: jnp.sum(apply(method, p).encoder.prefix ** 2))(params)
  assert np.any(slopes['bank']['prompt'])


def test_spt_with_a_bank_of_one_is_prompt_tuning():
  method = SPT(P, prompts=1, memory=2)
  params = moved(method)
  rows = np.concatenate([params['bank']['prompt'][0], params['encoder']['prompt']])
  np.testing.assert_allclose(apply(method, params).encoder.prefix, np.stack([rows] * B), rtol=1e-6)


def layer_norm(x, params):
  x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
  return x * params['scale'] + params['bias']


def test_mpt_multiplies_the_shared_rows_by_each_tasks_factor():
  value = normal(P, H)
  method = MPT(tasks=2, length=P, rank=3, table=tables.Plain(FromArray(value)))
  variables = method.init(jax.random.key(0), context(method))
  first = apply(method, variables['params']).encoder.prefix
  np.testing.assert_allclose(first, np.stack([value] * B), rtol=1e-6)  # factors are ones
  params = moved(method)
  factor = np.einsum('kpr,krh->kph', params['rows'], params['columns'])
  want = params['encoder']['prompt'] * factor[[1, 0, 1]]
  np.testing.assert_allclose(apply(method, params).encoder.prefix, want, rtol=1e-4, atol=1e-5)
  for task in (0, 1):  # each is plain rows by itself
    own = base.materialise(method, params, {}, CONFIG.sizes, task_id=task).encoder.prefix[0]
    np.testing.assert_allclose(
      own, params['encoder']['prompt'] * factor[task], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
  ('method', 'says'),
  [
    (L2P(prompts=3, chosen=4), facts('L2P.chosen', '4', '3')),
    (SPT(memory=0), facts('SPT.memory', '0')),
    (SMoP(prompts=0), facts('SMoP.prompts', '0')),
    (IDPG(kronecker=3), facts('IDPG.kronecker', '3', str(H))),
    (LoPA(rank=0), facts('LoPA.rank', '0')),
    (IDPG(hidden=0), facts('IDPG.hidden', '0')),
    (IDSPAM(hidden=0), facts('IDSPAM.hidden', '0')),
    (DePT(rank=0), facts('DePT.rank', '0')),
    (DePT(input_length=5), facts('DePT.input_length', '5', '7')),
    (MPT(rank=0), facts('MPT.rank', '0')),
    (MPT(placement='first'), facts('MPT.placement', 'first')),
  ],
)
def test_wrong_settings_are_named(method, says):
  with pytest.raises(UserError, match=says):
    method.init(jax.random.key(0), context(method))
