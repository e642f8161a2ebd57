"""Edits inside the layers: folded into the weights they are the same model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import core

from prompt_jax.errors import UserError
from prompt_jax.injections import POINTS, Context, Dims, Injection, Injections, InsideEdit
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.base import PromptMethod, placeholder
from prompt_jax.prompts.methods.inside.adapter import Adapter, Network
from prompt_jax.prompts.methods.inside.bitfit import BitFit
from prompt_jax.prompts.methods.inside.ia3 import IA3
from prompt_jax.prompts.methods.inside.linear_adapter import LinearAdapter
from prompt_jax.prompts.methods.inside.lora import LoRA
from prompt_jax.prompts.methods.inside.mam import MAM
from prompt_jax.prompts.methods.inside.parallel_adapter import ParallelAdapter
from prompt_jax.prompts.methods.inside.places import widths
from prompt_jax.prompts.tables import Plain
from prompt_jax.testing import tiny
from tests.shared import facts

CONFIG = tiny.config()
SIZES = CONFIG.sizes
BATCH = tiny.batch()
RNG = np.random.default_rng(0)
# Our stack and the attention of the tree that it is.
ATTENTIONS = {
  'encoder': ('encoder', 'attention'),
  'decoder': ('decoder', 'self_attention'),
  'cross': ('decoder', 'encoder_decoder_attention'),
}


def normal(*shape):
  return RNG.normal(size=shape).astype(np.float32)


@functools.lru_cache(None)
def backbone():
  init = jax.jit(PromptedT5(T5(CONFIG), None).init)
  return jax.tree.map(np.asarray, init(jax.random.key(0), BATCH)['params']['backbone'])


def logits(method, params, weights=None):
  model = PromptedT5(T5(CONFIG), method)
  variables = {'params': {'backbone': weights or backbone(), 'prompt': params}}
  return jax.jit(lambda v: model.apply(v, BATCH)[0])(variables)


def moved(method, scale=0.3):
  """Random parameters around its first ones."""
  params = method.init(jax.random.key(0), placeholder(method, SIZES))['params']
  return jax.tree.map(lambda x: np.asarray(x) + scale * normal(*x.shape), params)


def folded(change):
  """The backbone with `change(stack, layers)` made of a copy of each stack's layers."""
  tree = jax.tree.map(np.array, backbone())
  for stack in ATTENTIONS:
    change(stack, tree[ATTENTIONS[stack][0]]['layers'])
  return tree


@pytest.mark.parametrize('points', [('query', 'value'), ('query', 'key', 'value', 'attention')])
def test_lora_is_a_change_of_the_matrices(points):
  method = LoRA(rank=3, alpha=6.0, points=points)
  params = moved(method)

  def change(stack, layers):
    for point in points:
      name = 'out' if point == 'attention' else point
      down, up = (params[f'{stack}_{point}_{part}'] for part in ('down', 'up'))
      layers[ATTENTIONS[stack][1]][name]['kernel'] += 2.0 * np.einsum('lir,lro->lio', down, up)

  want = logits(None, {}, folded(change))
  assert np.abs(want - logits(None, {})).max() > 0.1
  np.testing.assert_allclose(logits(method, params), want, rtol=1e-4, atol=2e-4)


def test_linear_adapters_are_a_change_of_the_matrices_before_them():
  method = LinearAdapter(size=3)
  params = moved(method)

  def change(stack, layers):
    attention = layers[ATTENTIONS[stack][1]]['out']
    places = [('attention', attention)]
    places += [('mlp', layers['mlp']['wo'])] if stack != 'cross' else []
    for point, place in places:
      down, up = (params[f'{stack}_{point}_{part}'] for part in ('down', 'up'))
      place['kernel'] += np.einsum('lih,lhr,lro->lio', place['kernel'], down, up)

  want = logits(None, {}, folded(change))
  assert np.abs(want - logits(None, {})).max() > 0.1
  np.testing.assert_allclose(logits(method, params), want, rtol=1e-4, atol=2e-4)


def test_ia3_multiplies_columns_and_rows_of_the_matrices():
  method = IA3()
  params = moved(method)

  def change(stack, layers):
    attention = layers[ATTENTIONS[stack][1]]
    for point in ('key', 'value'):
      attention[point]['kernel'] *= params[f'{stack}_{point}'][:, None]
    if stack != 'cross':
      layers['mlp']['wo']['kernel'] *= params[f'{stack}_mlp_hidden'][..., None]

  want = logits(None, {}, folded(change))
  np.testing.assert_allclose(logits(method, params), want, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(('before', 'behind'), [('heads', 'attention'), ('mlp_hidden', 'mlp')])
def test_what_is_doubled_before_a_matrix_is_doubled_behind_it(before, behind):
  doubled = []
  for point in (before, behind):
    method = IA3(points=(point,))
    params = method.init(jax.random.key(0), placeholder(method, SIZES))['params']
    doubled.append(logits(method, jax.tree.map(lambda x: 2 * x, params)))
  assert np.abs(doubled[0] - logits(None, {})).max() > 0.1
  np.testing.assert_allclose(*doubled, rtol=1e-4, atol=2e-4)


def test_a_bias_of_the_values_is_one_behind_the_attention():
  """Weights of attention add up to one: what all values gain, the heads gain."""
  method = BitFit(points=('value',))
  params = moved(method)

  behind = {}
  for stack, (tree, attention) in ATTENTIONS.items():
    kernel = backbone()[tree]['layers'][attention]['out']['kernel']
    behind[f'{stack}_attention'] = np.einsum('li,lio->lo', params[f'{stack}_value'], kernel)
  want = logits(BitFit(points=('attention',)), behind)
  np.testing.assert_allclose(logits(method, params), want, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(
  'method', [LoRA(), IA3(), BitFit(), Adapter(size=4), ParallelAdapter(size=4)], ids=repr
)
def test_it_begins_as_the_frozen_model(method):
  params = method.init(jax.random.key(0), placeholder(method, SIZES))['params']
  np.testing.assert_allclose(logits(method, params), logits(None, {}), atol=1e-6)


@pytest.mark.parametrize('of_output', [True, False])
def test_an_adapter_is_a_network_of_two_layers(of_output):
  x, y = normal(2, 3, 8), normal(2, 3, 8)
  theta = {'down': normal(8, 4), 'down_bias': normal(4), 'up': normal(4, 8), 'up_bias': normal(8)}
  z = y if of_output else x
  h = np.maximum(z @ theta['down'] + theta['down_bias'], 0)
  want = y + 3.0 * (h @ theta['up'] + theta['up_bias'])
  theta = jax.tree.map(jnp.asarray, theta)
  got = Network('relu', of_output, 3.0)(theta, jnp.asarray(y), jnp.asarray(x))
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_parallel_adapter_reads_what_the_mlp_reads():
  """With weights of a linear mlp it doubles that mlp."""
  config = dataclasses.replace(CONFIG, mlp_activations=('relu',))
  tree = jax.jit(PromptedT5(T5(config), None).init)(jax.random.key(0), BATCH)['params']['backbone']
  params = {}
  for stack in ('encoder', 'decoder'):
    mlp = tree[stack]['layers']['mlp']
    params[f'{stack}_mlp_down'], params[f'{stack}_mlp_up'] = (
      mlp['wi']['kernel'],
      mlp['wo']['kernel'],
    )
    layers = mlp['wi']['kernel'].shape[0]
    params[f'{stack}_mlp_down_bias'] = jnp.zeros((layers, config.mlp_dim))
    params[f'{stack}_mlp_up_bias'] = jnp.zeros((layers, config.emb_dim))

  def run(method, params):
    model = PromptedT5(T5(config), method)
    return model.apply({'params': {'backbone': tree, 'prompt': params}}, BATCH)[0]

  twice = IA3(points=('mlp',))
  ones = twice.init(jax.random.key(0), placeholder(twice, config.sizes))['params']
  want = run(twice, jax.tree.map(lambda x: 2 * x, ones))
  got = run(ParallelAdapter(size=config.mlp_dim, scale=1.0), params)
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-4)


def test_mam_is_its_two_parts():
  method = MAM(length=3, size=4, table=Plain())
  params = moved(method)
  assert params.keys() == {'prefix', 'adapter'}
  found = method.apply({'params': params}, placeholder(method, SIZES))
  for stack in ('encoder', 'decoder', 'cross'):
    part = getattr(found, stack)
    np.testing.assert_array_equal(
      part.kv.reshape(params['prefix'][stack]['prompt'].shape), params['prefix'][stack]['prompt']
    )
    assert [edit.point for edit in part.inside] == ([] if stack == 'cross' else ['mlp'])


class Edits(PromptMethod):
  """One edit, of the stack and at the point that a test asks for."""

  stack: str = 'encoder'
  point: str = 'query'
  layers: int = SIZES.stacks['encoder'].L
  cut: bool = False

  def __call__(self, ctx):
    fn = (lambda theta, y, x: y[..., :1]) if self.cut else (lambda theta, y, x: y)
    edit = InsideEdit(jnp.zeros((self.layers, 2)), self.point, fn)
    return Injections.of({self.stack: Injection(inside=(edit,))})


@pytest.mark.parametrize(
  ('method', 'says'),
  [
    (Edits(point='gate'), facts('Edits', 'gate', *POINTS)),
    (Edits('cross', 'mlp'), facts('cross', 'mlp', 'attention')),
    (Edits(layers=5), facts('float32[5, 2]', 'query', f'[{SIZES.stacks["encoder"].L}, ...]')),
    (Edits(cut=True), facts('query', '1]')),
    (LoRA(points=('mlp',)), facts('LoRA.points', 'mlp', 'attention')),
    (LoRA(points='query'), facts('LoRA.points', 'query')),
    (LoRA(rank=0), facts('LoRA.rank', '0')),
    (IA3(points=()), facts('IA3.points', 'mlp_hidden')),
    (Adapter(size=0), facts('Adapter.size', '0')),
    (Adapter(activation='gelu'), facts('Adapter.activation', 'gelu', 'tanh')),
    (ParallelAdapter(size=0), facts('ParallelAdapter.size', '0')),
  ],
)
def test_what_cannot_be_edited_is_refused(method, says):
  with pytest.raises(UserError, match=says):
    jax.eval_shape(PromptedT5(T5(CONFIG), method).init, jax.random.key(0), BATCH)


def test_widths_of_grouped_heads():
  dims = Dims(L=1, H=12, N=4, D=5, kv_heads=2, F=7)
  found = {point: widths(point, dims) for point in POINTS}
  assert found == {
    'query': (20, 12),
    'key': (10, 12),
    'value': (10, 12),
    'heads': (20, 12),
    'attention': (12, 20),
    'mlp_hidden': (7, 12),
    'mlp': (12, 12),
  }


def test_a_decoder_only_model_has_no_cross_attention():
  dims = Dims(L=2, H=12, N=4, D=5, kv_heads=2, F=7)
  ctx = Context(stacks=core.FrozenDict(decoder=dims), input_stack='decoder')
  found = IA3().init_with_output(jax.random.key(0), ctx)[0]
  assert (found.encoder, found.cross) == (Injection(), Injection())
  assert [edit.theta.shape for edit in found.decoder.inside] == [(2, 10), (2, 10), (2, 7)]
