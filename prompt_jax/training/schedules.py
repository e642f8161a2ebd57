"""Learning-rate schedules: pure functions step -> rate, for `optax` and for plots.

A step is counted from 0. Warm-up is linear, and step 0 already moves: rate * (step + 1) / warmup.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError

Schedule = Callable[[jax.Array | int], jax.Array]


def constant(learning_rate: float, warmup_steps: int = 0) -> Schedule:
  """`learning_rate` at every step after warm-up; 0.3 is the published rate for prompts."""

  def schedule(step):
    return learning_rate * _warmup(step, warmup_steps)

  return schedule


def linear(
  learning_rate: float, steps: int, warmup_steps: int = 0, final_rate: float = 0.0
) -> Schedule:
  """A straight line from `learning_rate` after warm-up to `final_rate` at `steps`, then flat."""
  _check(steps, warmup_steps)

  def schedule(step):
    done = _fraction(step, warmup_steps, steps)
    rate = final_rate + (learning_rate - final_rate) * (1.0 - done)
    return rate * _warmup(step, warmup_steps)

  return schedule


def cosine(
  learning_rate: float, steps: int, warmup_steps: int = 0, final_rate: float = 0.0
) -> Schedule:
  """Half a cosine from `learning_rate` after warm-up to `final_rate` at `steps`, then flat.

  Loshchilov and Hutter 2017 (arXiv 1608.03983), equation 5, without restarts.
  """
  _check(steps, warmup_steps)

  def schedule(step):
    done = _fraction(step, warmup_steps, steps)
    rate = final_rate + (learning_rate - final_rate) * 0.5 * (1.0 + jnp.cos(jnp.pi * done))
    return rate * _warmup(step, warmup_steps)

  return schedule


def rsqrt(learning_rate: float, decay_from: int = 10_000, warmup_steps: int = 0) -> Schedule:
  """rate * sqrt(decay_from / max(step, decay_from)): T5's pre-training is 0.01 and 10,000.

  Raffel et al. 2020, section 3.1.2: 1 / sqrt(max(n, k)), which is 0.01 until step k = 10^4.
  """
  if decay_from < 1:
    raise UserError(f'decay_from is {decay_from}; expected at least 1')

  def schedule(step):
    later = jnp.maximum(jnp.asarray(step, jnp.float32), float(decay_from))
    return learning_rate * jnp.sqrt(decay_from / later) * _warmup(step, warmup_steps)

  return schedule


def _check(steps: int, warmup_steps: int) -> None:
  if steps <= warmup_steps:
    raise UserError(
      f'A schedule of {steps} steps leaves none after {warmup_steps} of warm-up. Give more '
      'steps, or a smaller warmup_steps.'
    )


def _warmup(step, warmup_steps: int) -> jax.Array:
  return jnp.minimum(1.0, (jnp.asarray(step, jnp.float32) + 1.0) / max(warmup_steps, 1))


def _fraction(step, begin: int, end: int) -> jax.Array:
  """How much of [begin, end] is behind `step`, in [0, 1]."""
  return jnp.clip((jnp.asarray(step, jnp.float32) - begin) / (end - begin), 0.0, 1.0)
