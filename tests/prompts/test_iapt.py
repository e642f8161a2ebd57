"""IAPT: the rows of a layer, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.injections import Context, Layout
from prompt_jax.prompts import base
from prompt_jax.prompts.methods.deep.iapt import (
  DENOMINATOR,
  IAPT,
  NUMERATOR,
  generated,
  rational,
)
from prompt_jax.testing import tiny
from tests.shared import facts

SIZES = tiny.config().sizes
H, L, P, R = SIZES.stacks['encoder'].H, SIZES.stacks['encoder'].L, 2, 3
RNG = np.random.default_rng(0)


def normal(*shape):
  return RNG.normal(size=shape).astype(np.float32)


THETA = {
  'query': normal(H), 'down': normal(H, R) / 10, 'up': normal(R, P, H), 'rows': normal(P, H),
  'numerator': normal(6), 'denominator': normal(4),
}  # fmt: skip


def rows_of(tokens, theta=THETA):
  """float32[P, H] the rows that one example's states [T, H] make."""
  h = tokens / np.sqrt((tokens**2).mean(-1, keepdims=True) + 1e-6)
  scores = h @ theta['query']
  shares = np.exp(scores - scores.max())
  z = (shares / shares.sum()) @ h @ theta['down']
  over = sum(a * z**i for i, a in enumerate(theta['numerator']))
  under = 1 + np.abs(sum(b * z ** (j + 1) for j, b in enumerate(theta['denominator'])))
  return np.einsum('r,rph->ph', over / under, theta['up']) + theta['rows']


def test_the_rows_of_a_layer_are_made_of_its_tokens():
  x = normal(2, P + 4, H)
  slot = np.asarray([[0, 1, -1, -1, -1, -1], [-1, 0, 1, -1, -1, -1]], np.int32)
  mask = np.asarray([[True] * 6, [True] * 4 + [False] * 2])
  got = generated(THETA, jnp.asarray(x), Layout(jnp.asarray(mask), jnp.asarray(slot)))
  want = x.copy()
  for row, (prompt, tokens) in enumerate((([0, 1], [2, 3, 4, 5]), ([1, 2], [0, 3]))):
    want[row, prompt] = rows_of(x[row, tokens])
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_each_example_of_a_packed_row_has_rows_of_its_own():
  x = normal(1, 9, H)
  slot = np.asarray([[0, 1, -1, -1, 0, 1, -1, -1, -1]], np.int32)
  segments = np.asarray([[1, 1, 1, 1, 2, 2, 2, 2, 0]], np.int32)
  layout = Layout(jnp.asarray(segments > 0), jnp.asarray(slot), jnp.asarray(segments))
  got = generated(THETA, jnp.asarray(x), layout)
  want = x.copy()
  want[0, :2], want[0, 4:6] = rows_of(x[0, 2:4]), rows_of(x[0, 6:8])
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def test_the_activation_starts_as_gelu_and_never_divides_by_nothing():
  z = np.linspace(-4, 4, 101, dtype=np.float32)
  found = rational(jnp.asarray(z), *map(jnp.asarray, (NUMERATOR, DENOMINATOR)))
  np.testing.assert_allclose(found, jax.nn.gelu(z, approximate=False), atol=3e-3)
  for x in (100 * normal(1, 6, H), np.zeros((1, 6, H), np.float32)):
    layout = Layout(jnp.ones((1, 6), bool), jnp.asarray([[0, 1, -1, -1, -1, -1]]))
    of_layer = generated(THETA, jnp.asarray(x, jnp.bfloat16), layout)
    assert np.isfinite(np.asarray(of_layer, np.float32)).all()


def test_all_layers_share_the_generator_and_each_has_its_activation():
  params = base.first_values(IAPT(length=P, hidden=R), jax.random.key(0), SIZES)[1]['params']
  shapes = {name: x.shape for name, x in params.items() if name != 'encoder'}
  assert shapes == {
    'query': (H,), 'down': (H, R), 'up': (R, P, H), 'numerator': (L, 6), 'denominator': (L, 4),
  }  # fmt: skip


def test_a_model_without_an_encoder_is_refused():
  ctx = Context(stacks=SIZES.stacks, input_stack='decoder')
  with pytest.raises(UserError, match=facts('IAPT', 'encoder')):
    IAPT().init(jax.random.key(0), ctx)
