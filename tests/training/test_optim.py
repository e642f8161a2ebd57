"""Optimizers against the published rules, restated in NumPy; schedules against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_jax.errors import UserError
from prompt_jax.training import optim, schedules
from tests.shared import facts

RNG = np.random.default_rng(0)


def published_adafactor(
  p, gradients, *, rate, factored=False, offset=0, wd=1e-5, clip=1.0, scale=False
):
  """The rule of T5X's Adafactor for one parameter, float64; the trajectory of p."""
  v = r = c = 0.0
  out = []
  for i, g in enumerate(gradients):
    beta = 1 - (i + 1 + offset) ** -0.8
    square = g**2 + 1e-30
    if factored:
      r = beta * r + (1 - beta) * square.mean(-1)
      c = beta * c + (1 - beta) * square.mean(-2)
      u = g / np.sqrt(np.outer(r, c) / r.mean())
    else:
      v = beta * v + (1 - beta) * square
      u = g / np.sqrt(v)
    y = u / max(1.0, np.sqrt((u**2).mean()) / clip)
    s = max(1e-3, np.sqrt((p**2).mean())) if scale else 1.0
    p = (1 - wd) * p - rate(i) * s * y
    out.append(p)
  return out


@pytest.mark.parametrize('factored', [False, True])
@pytest.mark.parametrize('offset', [0, 1_100_000])
@pytest.mark.parametrize('scale', [False, True])
def test_twenty_steps_of_adafactor(factored, offset, scale):
  p = RNG.normal(size=(6, 5))
  # Gradients that shrink and jump, so that both the clipped and the unclipped branch are taken.
  gradients = [RNG.normal(size=p.shape) * 10 ** RNG.uniform(-3, 1) for _ in range(20)]
  rate = schedules.linear(0.3, 20, warmup_steps=5)
  tx = optim.adafactor(
    rate,
    factored=factored,
    min_dim_size_to_factor=2,
    step_offset=offset,
    weight_decay=1e-3,
    scale_by_parameter=scale,
  )
  expected = published_adafactor(
    p, gradients, rate=rate, factored=factored, offset=offset, wd=1e-3, scale=scale
  )
  tree = {'prompt': jnp.asarray(p, jnp.float32)}
  state = tx.init(tree)
  for g, want in zip(gradients, expected, strict=True):
    updates, state = tx.update({'prompt': jnp.asarray(g, jnp.float32)}, state, tree)
    tree = optax.apply_updates(tree, updates)
    # 1 - beta is 1.5e-5 with the offset and has few digits in float32, in T5X as here.
    np.testing.assert_allclose(tree['prompt'], want, rtol=1e-4, atol=2e-3 if offset else 1e-4)


def test_published_offset_moves_every_step_by_the_learning_rate():
  """REFERENCE 1.8: with v = 0 at step 1.1M the clip stays active, so RMS(step) = lr."""
  p = {'prompt': jnp.zeros((10, 8))}
  tx = optim.adafactor(0.3, step_offset=1_100_000, weight_decay=0.0)
  unclipped = optim.adafactor(1.0, step_offset=1_100_000, weight_decay=0.0, clip=None)
  state, raw_state = tx.init(p), unclipped.init(p)
  for i in range(30):
    g = {'prompt': jnp.asarray(RNG.normal(size=(10, 8)), jnp.float32)}
    updates, state = tx.update(g, state, p)
    raw, raw_state = unclipped.update(g, raw_state, p)
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(updates['prompt'] ** 2)), 0.3, rtol=1e-5)
    if i == 0:
      np.testing.assert_allclose(jnp.abs(raw['prompt']), 261, rtol=0.01)


def test_weight_decay_is_not_multiplied_by_the_learning_rate():
  p = {'prompt': jnp.ones((4, 4))}
  tx = optim.adafactor(1e-6, weight_decay=0.1)
  updates, _ = tx.update({'prompt': jnp.zeros((4, 4))}, tx.init(p), p)
  np.testing.assert_allclose(updates['prompt'], -0.1, rtol=1e-4)


def test_stacked_layers_are_clipped_apart():
  g = np.stack([np.full((2, 3), 1.0), np.full((2, 3), 1e-3)])
  tx = optim.adafactor(1.0, weight_decay=0.0, clip=0.5)
  apart = {'a': jnp.asarray(g[0], jnp.float32), 'b': jnp.asarray(g[1], jnp.float32)}
  stacked = {'encoder': {'layers': {'kernel': jnp.asarray(g, jnp.float32)}}}
  # Two steps: at the first, every |u| is 1.
  results = []
  for tree in (apart, stacked):
    state = tx.init(tree)
    for factor in (1.0, 100.0):
      scaled = jax.tree.map(lambda x, f=factor: x * f ** (x > 0.5), tree)
      updates, state = tx.update(scaled, state, tree)
    results.append(updates)
  kernel = results[1]['encoder']['layers']['kernel']
  np.testing.assert_allclose(kernel[0], results[0]['a'], rtol=1e-6)
  np.testing.assert_allclose(kernel[1], results[0]['b'], rtol=1e-6)


@pytest.mark.parametrize(
  ('factored', 'expected'), [(False, 128 * 256), (True, 128 + 256)], ids=['full', 'factored']
)
def test_factored_is_an_option_and_not_a_matter_of_length(factored, expected):
  tx = optim.adafactor(0.3, factored=factored)
  state = tx.init({'prompt': jnp.zeros((128, 256))})
  moments = sum(x.size for x in jax.tree.leaves(state) if x.size > 1)
  assert moments == expected


def test_adamw_is_the_published_rule():
  p, m, v = RNG.normal(size=(3, 2)), 0.0, 0.0
  tx = optim.adamw(0.1, weight_decay=0.01)
  tree = {'w': jnp.asarray(p, jnp.float32)}
  state = tx.init(tree)
  for t in range(1, 11):
    g = RNG.normal(size=p.shape)
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    p = p - 0.1 * (m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8) + 0.01 * p)
    updates, state = tx.update({'w': jnp.asarray(g, jnp.float32)}, state, tree)
    tree = optax.apply_updates(tree, updates)
  np.testing.assert_allclose(tree['w'], p, rtol=1e-4)


def test_adamw_clips_the_global_norm():
  """With b1 = b2 = 0 the update is sign(g) unless eps matters; a large eps shows the norm."""
  tx = optim.adamw(1.0, b1=0.0, b2=0.0, eps=1e6, weight_decay=0.0, max_grad_norm=1.0)
  tree = {'w': jnp.zeros(4)}
  updates, _ = tx.update({'w': jnp.full(4, 5.0)}, tx.init(tree), tree)
  np.testing.assert_allclose(updates['w'], -0.5e-6, rtol=1e-4)


def test_each_group_has_its_own_rate():
  tree = {'prompt': {'table': jnp.ones((2, 2)), 'up': {'kernel': jnp.ones((2, 2))}}}
  tx = optim.by_path({'prompt/table': optax.sgd(1.0), '.*': optax.sgd(0.25)})
  updates, _ = tx.update(jax.tree.map(jnp.ones_like, tree), tx.init(tree), tree)
  np.testing.assert_array_equal(updates['prompt']['table'], -1.0)
  np.testing.assert_array_equal(updates['prompt']['up']['kernel'], -0.25)


def test_groups_must_match_and_must_cover():
  tree = {'prompt': {'table': jnp.ones(2), 'up': jnp.ones(2)}}
  with pytest.raises(UserError, match='prompt/tabel'):
    optim.by_path({'prompt/tabel': optax.sgd(1.0), '.*': optax.sgd(1.0)}).init(tree)
  with pytest.raises(UserError, match='prompt/up'):
    optim.by_path({'prompt/table': optax.sgd(1.0)}).init(tree)


def test_schedules():
  np.testing.assert_allclose(schedules.constant(0.3)(12345), 0.3, rtol=1e-6)
  warm = schedules.constant(0.3, warmup_steps=4)
  np.testing.assert_allclose([warm(i) for i in range(5)], [0.075, 0.15, 0.225, 0.3, 0.3], rtol=1e-6)
  line = schedules.linear(1.0, 10, warmup_steps=2, final_rate=0.2)
  np.testing.assert_allclose(
    [line(0), line(2), line(6), line(10), line(99)], [0.5, 1.0, 0.6, 0.2, 0.2], rtol=1e-6
  )
  half = schedules.cosine(1.0, 8, final_rate=0.1)
  np.testing.assert_allclose(
    [half(0), half(2), half(4), half(8), half(20)],
    [1.0, 0.1 + 0.9 * (1 + np.sqrt(0.5)) / 2, 0.55, 0.1, 0.1],
    rtol=1e-5,
  )
  root = schedules.rsqrt(0.01, 100)
  np.testing.assert_allclose([root(0), root(100), root(400)], [0.01, 0.01, 0.005], rtol=1e-6)


def test_schedules_work_on_traced_steps():
  for schedule in (
    schedules.constant(0.3, 3),
    schedules.linear(0.3, 9),
    schedules.cosine(0.3, 9),
    schedules.rsqrt(0.3, 9),
  ):
    np.testing.assert_allclose(jax.jit(schedule)(jnp.int32(7)), schedule(7), rtol=1e-6)


def test_schedule_errors():
  with pytest.raises(UserError, match='5 steps'):
    schedules.linear(1.0, 5, warmup_steps=5)
  with pytest.raises(UserError, match=facts('decay_from', '0')):
    schedules.rsqrt(1.0, 0)
