"""Equations of the tables in `prompts.reparametrised`, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.prompts import tables
from prompt_jax.prompts.initializers import FromArray, Normal
from prompt_jax.prompts.reparametrised.lopt2 import LoPT2
from prompt_jax.prompts.reparametrised.scaled import Scaled
from prompt_jax.prompts.reparametrised.sink import Sink
from prompt_jax.prompts.reparametrised.subspace import RandomSubspace, signs
from prompt_jax.prompts.reparametrised.superpos import SuperPos
from tests.shared import facts

P, H, M = 5, 8, 6
SHAPES = [(P, H), (3, P, H), (2, 3, P, H)]
RNG = np.random.default_rng(0)


def normal(*shape):
  return RNG.normal(size=shape).astype(np.float32)


def moved(table, shape):
  """Its variables, with random parameters."""
  variables = table.init(jax.random.key(0), shape)
  return {**variables, 'params': jax.tree.map(lambda x: normal(*x.shape), variables['params'])}


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('light', [False, True])
def test_superpos_adds_up_shared_embeddings(shape, light):
  basis = normal(M, H)
  table = SuperPos(size=M, light=light, initializer=FromArray(basis))
  variables = moved(table, shape)
  params = variables['params']
  assert set(params) == ({'weights'} if light else {'weights', 'change'})
  np.testing.assert_array_equal(variables['constants']['basis'], basis)
  change = params.get('change', np.zeros((*shape[:-1], M, H)))
  want = np.einsum('...m,...mh->...h', params['weights'], basis + change)
  np.testing.assert_allclose(table.apply(variables, shape), want, rtol=1e-4, atol=1e-5)


def test_superpos_starts_about_as_long_as_embeddings():
  shape = (200, 64)
  value, variables = SuperPos(128, initializer=Normal(3.0)).init_with_output(
    jax.random.key(0), shape
  )
  assert not np.any(variables['params']['change'])
  length = np.linalg.norm(value, axis=-1).mean()
  np.testing.assert_allclose(length, 3.0 * np.sqrt(64), rtol=0.1)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize(
  ('name', 'act'),
  [('sigmoid', lambda x: 1 / (1 + np.exp(-x))), ('relu', lambda x: np.maximum(x, 0))],
)
def test_lopt2_is_a_low_rank_function_of_rows_that_stay(name, act, shape):
  origin = normal(*shape)
  table = LoPT2(3, name, FromArray(origin))
  first, variables = table.init_with_output(jax.random.key(0), shape)
  params = variables['params']
  np.testing.assert_array_equal(variables['constants']['origin'], origin)
  hidden = act(origin @ params['left'])
  np.testing.assert_allclose(first, hidden @ params['right'], rtol=1e-3, atol=1e-4)
  # The best start there is: what it lacks is at right angles to what it can change.
  left_over = np.swapaxes(hidden, -1, -2) @ (origin - np.asarray(first))
  np.testing.assert_allclose(left_over, np.zeros_like(left_over), atol=1e-3)
  random = moved(table, shape)
  want = act(origin @ random['params']['left']) @ random['params']['right']
  np.testing.assert_allclose(table.apply(random, shape), want, rtol=1e-4, atol=1e-4)


def test_lopt2_has_as_many_numbers_for_any_length():
  for rows in (2, 50):
    params = moved(LoPT2(3, initializer=Normal()), (rows, H))['params']
    assert sum(x.size for x in jax.tree.leaves(params)) == 2 * 3 * H


@pytest.mark.parametrize('axis', ['all', 'row', 'column'])
def test_scaled_multiplies_and_starts_as_its_base(axis):
  shape, value = (2, P, H), normal(2, P, H)
  table = Scaled(tables.Plain(FromArray(value)), axis)
  first, variables = table.init_with_output(jax.random.key(0), shape)
  np.testing.assert_array_equal(first, value)
  size = {'all': (2, 1, 1), 'row': (2, P, 1), 'column': (2, 1, H)}[axis]
  scale = normal(*size)
  assert variables['params']['scale'].shape == size
  variables = {'params': {**variables['params'], 'scale': scale}}
  np.testing.assert_allclose(table.apply(variables, shape), scale * value, rtol=1e-6)


def test_the_gradient_of_one_scale_is_that_of_the_rows_along_the_rows():
  value, weight = normal(P, H), normal(P, H)
  table = Scaled(tables.Plain(FromArray(value)))
  variables = table.init(jax.random.key(0), (P, H))
  loss = lambda v: jnp.sum(jnp.sin(table.apply(v, (P, H))) * weight)
  found = jax.grad(loss)(variables)['params']
  want = np.sum(np.cos(value) * weight * value)
  np.testing.assert_allclose(found['scale'][0, 0], want, rtol=1e-4)


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_a_subspace_moves_all_rows_along_its_directions(shape):
  origin = normal(*shape)
  table = RandomSubspace(size=3, initializer=FromArray(origin))
  first, variables = table.init_with_output(jax.random.key(0), shape)
  np.testing.assert_array_equal(first, origin)
  assert jax.tree.map(jnp.shape, variables['params']) == {'point': (3,)}
  assert variables['constants']['seed'].shape == ()
  at = lambda point: table.apply({**variables, 'params': {'point': jnp.asarray(point)}}, shape)
  point = normal(3)
  directions = np.stack([at(one) - origin for one in np.eye(3, dtype=np.float32)])
  np.testing.assert_allclose(np.abs(directions), 3**-0.5, rtol=1e-4)
  want = origin + np.einsum('k,k...->...', point, directions)
  np.testing.assert_allclose(at(point), want, rtol=1e-5, atol=1e-5)


def test_directions_of_a_subspace_are_signs_of_a_hash():
  """The same for ever, on every device: prompt files hold the seed alone."""

  def mixed(x):
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
      x = (x ^ x >> shift) * factor % 2**32
    return x ^ x >> 16

  found = np.asarray(signs(np.uint32(7), 40, 50))
  words = [[mixed((2 * row + word) ^ mixed(7)) for word in range(2)] for row in range(40)]
  bits = [[words[row][k // 32] >> k % 32 & 1 for k in range(50)] for row in range(40)]
  np.testing.assert_array_equal(found, 2.0 * np.asarray(bits) - 1)
  other = np.asarray(signs(np.uint32(8), 600, 50))
  assert np.abs(np.corrcoef(other.T) - np.eye(50)).max() < 0.2
  assert abs(other.mean()) < 0.02
  assert abs((other[:40] * found).mean()) < 0.1


@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_a_sink_stands_before_the_rows_that_train(shape):
  *lead, p, h = shape
  value, first = normal(*lead, p - 2, h), normal(*lead, 2, h)
  table = Sink(tables.Plain(FromArray(value)), rows=2, initializer=FromArray(first))
  found, variables = table.init_with_output(jax.random.key(0), shape)
  np.testing.assert_array_equal(found, np.concatenate([first, value], -2))
  assert jax.tree.map(jnp.shape, variables['params']) == {'base': {'prompt': value.shape}}
  zero = Sink(tables.Plain()).init_with_output(jax.random.key(0), shape)[0]
  assert not np.any(zero[..., 0, :])
  assert np.all(zero[..., 1:, :])


@pytest.mark.parametrize(
  ('table', 'says'),
  [
    (SuperPos(size=0), facts('SuperPos.size', '0')),
    (Scaled(axis='rows'), facts('Scaled.axis', 'rows', 'column')),
    (RandomSubspace(size=41), facts('RandomSubspace.size', '41', '40')),
    (Sink(rows=5), facts('Sink.rows', '5', '4')),
    (Sink(rows=0), facts('Sink.rows', '0', '1')),
  ],
)
def test_wrong_settings_are_named(table, says):
  with pytest.raises(UserError, match=says):
    table.init(jax.random.key(0), (P, H))
