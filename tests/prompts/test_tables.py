"""Each table's equation against NumPy (the LSTM against torch), and its leading axes."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.prompts import tables
from prompt_jax.prompts.initializers import FromArray, Uniform, Zeros
from tests.shared import facts

P, H = 5, 8
SHAPES = [(P, H), (3, P, H), (2, 3, P, H)]
RNG = np.random.default_rng(0)
TABLES = {
  'plain': tables.Plain(),
  'low_rank': tables.LowRank(rank=3),
  'mlp': tables.Mlp(hidden=6, width=4),
  'lstm': tables.Lstm(hidden=3, width=4),
  'residual': tables.Residual(bottleneck=6),
}


def start(table, shape):
  """The table's first value and parameters, as NumPy."""
  value, variables = table.init_with_output(jax.random.key(0), shape)
  return np.asarray(value), jax.tree.map(np.asarray, variables['params'])


def some(table, shape):
  """Random parameters of the table: biases that start at 0 must count too."""
  shapes = jax.eval_shape(lambda: table.init(jax.random.key(0), shape))['params']
  return jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), shapes)


def run(table, params, shape):
  return np.asarray(jax.jit(lambda p: table.apply({'params': p}, shape))(params))


def dense(p, x):
  return x @ p['kernel'] + p['bias']


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('name', TABLES)
def test_a_table_fills_any_leading_axes_and_every_row_can_differ(name, shape):
  table = TABLES[name]
  value = run(table, some(table, shape), shape)
  assert value.shape == shape
  assert value.dtype == np.float32
  rows = value.reshape(-1, H)
  assert len(np.unique(rows, axis=0)) == len(rows)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_plain_is_its_initial_value(shape):
  want = RNG.normal(size=shape).astype(np.float32)
  value, params = start(tables.Plain(FromArray(want)), shape)
  np.testing.assert_array_equal(value, want)
  np.testing.assert_array_equal(params['prompt'], want)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_low_rank_starts_as_the_truncated_svd_and_is_a_product(shape):
  want = RNG.normal(size=shape).astype(np.float32)
  value, params = start(tables.LowRank(2, FromArray(want)), shape)
  u, s, v = np.linalg.svd(want, full_matrices=False)
  best = (u[..., :2] * s[..., None, :2]) @ v[..., :2, :]
  np.testing.assert_allclose(value, best, atol=1e-5)
  lengths = np.linalg.norm(params['left'], axis=-2), np.linalg.norm(params['right'], axis=-1)
  np.testing.assert_allclose(*lengths, rtol=1e-5)  # both factors of the same size
  other = some(tables.LowRank(2), shape)
  got = run(tables.LowRank(2), other, shape)
  np.testing.assert_allclose(got, other['left'] @ other['right'], atol=1e-5)


@pytest.mark.parametrize('table', [np.zeros((P, H)), np.outer(np.arange(1.0, P + 1), np.ones(H))])
def test_low_rank_of_a_table_with_less_rank_still_trains(table):
  module = tables.LowRank(3, FromArray(table))
  value, params = start(module, (P, H))
  np.testing.assert_allclose(value, table, atol=1e-5)
  target = RNG.normal(size=(P, H))
  loss = lambda p: jnp.sum((module.apply({'params': p}, (P, H)) - target) ** 2)
  gradient = jax.grad(loss)(params)
  # Each of the three components can move, through one factor at least.
  moves = np.abs(gradient['left']).max(0) + np.abs(gradient['right']).max(1)
  assert (moves > 1e-3).all()


def test_low_rank_refuses_a_rank_the_table_cannot_have():
  for rank in (0, 6):
    with pytest.raises(UserError, match='1 to 5'):
      start(tables.LowRank(rank), (P, H))


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('activation', ['tanh', 'relu'])
def test_mlp(activation, shape):
  table = tables.Mlp(hidden=6, width=4, activation=activation)
  p = some(table, shape)
  act = np.tanh if activation == 'tanh' else lambda x: np.maximum(x, 0)
  out = dense(p['out'], act(dense(p['hidden'], p['prompt'])))  # [P, prod(lead) * H]
  *lead, _, _ = shape
  want = np.empty(shape, np.float32)
  for row in range(P):
    want[..., row, :] = out[row].reshape(*lead, H)
  np.testing.assert_allclose(run(table, p, shape), want, rtol=1e-4, atol=1e-4)


def test_mlp_names_its_activations():
  with pytest.raises(UserError, match=facts("'gelu'", 'tanh', 'relu')):
    some(tables.Mlp(activation='gelu'), (P, H))


def test_width_is_that_of_the_rows_unless_given():
  assert some(tables.Mlp(hidden=3), (2, P, H))['prompt'].shape == (P, H)
  params = some(tables.Lstm(), (2, P, H))
  assert params['prompt'].shape == (P, H)
  assert params['forward_1']['input'].shape == (H, 4 * H // 2)  # two directions of H / 2


def test_lstm_is_torchs_bidirectional_lstm_and_a_relu_network():
  torch = pytest.importorskip('torch')
  table = tables.Lstm(hidden=3, width=4)
  p = some(table, (2, P, H))
  theirs = torch.nn.LSTM(4, 3, num_layers=2, bidirectional=True)
  with torch.no_grad():
    for layer in range(2):
      for side, end in (('forward', ''), ('backward', '_reverse')):
        ours = p[f'{side}_{layer}']
        for name, value in (
          ('weight_ih', ours['input'].T),
          ('weight_hh', ours['recurrent'].T),
          ('bias_ih', ours['bias']),
          ('bias_hh', np.zeros_like(ours['bias'])),
        ):
          getattr(theirs, f'{name}_l{layer}{end}').copy_(torch.tensor(np.array(value)))
    x = theirs(torch.tensor(p['prompt']))[0].numpy()
  out = dense(p['out'], np.maximum(dense(p['hidden'], x), 0)).reshape(P, 2, H)
  got = run(table, p, (2, P, H))
  np.testing.assert_allclose(got, out.swapaxes(0, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_residual_has_the_norm_inside_the_branch(shape):
  table = tables.Residual(bottleneck=6)
  p = some(table, shape)
  base = p['base']['prompt']
  x = dense(p['up'], np.maximum(dense(p['down'], base), 0))
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  want = base + x * p['norm']['scale'] + p['norm']['bias']
  np.testing.assert_allclose(run(table, p, shape), want, rtol=1e-4, atol=1e-4)


def test_layers_start_as_torchs_do():
  class Layer(nn.Module):
    @nn.compact
    def __call__(self):
      return tables.linear(3000, 16, 'out')(jnp.zeros((1, 16)))

  params = Layer().init(jax.random.key(0))['params']['out']
  for leaf in params.values():  # kaiming_uniform(a=sqrt(5)) is U(-1/sqrt(in), 1/sqrt(in))
    np.testing.assert_allclose([leaf.min(), leaf.max()], [-0.25, 0.25], atol=1e-3)


def test_tables_in_tables_have_parameters_of_their_own():
  nested = tables.Residual(base=tables.Residual(base=tables.LowRank(2), bottleneck=3), bottleneck=4)
  params = some(nested, (P, H))
  assert params['base']['base'].keys() == {'left', 'right'}
  assert params['base']['down']['kernel'].shape == (H, 3)
  assert params['down']['kernel'].shape == (H, 4)


def test_an_initialiser_is_asked_once_and_not_at_every_call():
  calls = []

  class Counting(Uniform):
    def __call__(self, key, shape, embedding=None, vocabulary=None):
      calls.append(shape)
      return super().__call__(key, shape)

  for make in (tables.Plain, tables.Mlp, tables.Lstm, functools.partial(tables.LowRank, 2)):
    table = make(initializer=Counting())
    params = some(table, (P, H))
    assert calls == [(P, H)]
    run(table, params, (P, H))
    assert len(calls) == 1
    calls.clear()


def test_tables_hash_so_that_a_model_can_be_static():
  assert hash(tables.Plain(Zeros())) == hash(tables.Plain(Zeros()))
  assert tables.Residual(tables.Plain(Zeros())) == tables.Residual(tables.Plain(Zeros()))
  assert tables.Plain(Zeros()) != tables.Plain(Uniform())
