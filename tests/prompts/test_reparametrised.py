"""Equations of the tables in `prompts.reparametrised`, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.prompts import tables
from prompt_jax.prompts.initializers import FromArray, Normal
from prompt_jax.prompts.reparametrised.scaled import Scaled
from prompt_jax.prompts.reparametrised.subspace import RandomSubspace
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
  point, directions = normal(3), variables['constants']['directions']
  want = origin + np.einsum('k,k...->...', point, directions)
  got = table.apply({**variables, 'params': {'point': point}}, shape)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_directions_of_a_subspace_are_random_and_of_unit_length_together():
  table = RandomSubspace(size=50)
  table = table.clone(initializer=Normal())
  variables = table.init(jax.random.key(0), (20, 30))['constants']
  directions = np.asarray(variables['directions']).reshape(50, -1)
  np.testing.assert_allclose(np.sum(directions**2, 0).mean(), 1.0, rtol=0.05)
  assert np.abs(np.corrcoef(directions) - np.eye(50)).max() < 0.2


@pytest.mark.parametrize(
  ('table', 'says'),
  [
    (SuperPos(size=0), facts('SuperPos.size', '0')),
    (Scaled(axis='rows'), facts('Scaled.axis', 'rows', 'column')),
    (RandomSubspace(size=41), facts('RandomSubspace.size', '41', '40')),
  ],
)
def test_wrong_settings_are_named(table, says):
  with pytest.raises(UserError, match=says):
    table.init(jax.random.key(0), (P, H))
