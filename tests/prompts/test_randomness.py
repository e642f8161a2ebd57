"""A method draws random numbers in training only, whether or not the backbone drops out."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_jax.injections import Injection, Injections
from prompt_jax.models.t5.config import with_dropout
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.testing import tiny
from prompt_jax.training.objective import CrossEntropy, split
from prompt_jax.training.optim import Update
from prompt_jax.training.step import create_state, train_step

BATCH = tiny.batch()
UPDATE = Update(optax.sgd(0.1))


class NoisyPrompt(PromptMethod):
  """Rows of zeros that training disturbs by normal noise; the noise is its auxiliary loss."""

  @nn.compact
  def __call__(self, ctx):
    rows = self.param('prompt', nn.initializers.zeros, (2, 32))
    if ctx.train:
      rows = rows + jax.random.normal(self.make_rng('prompt'), rows.shape)
    return Injections(encoder=Injection(prefix=rows[None]), aux_loss=jnp.mean(rows))


@functools.cache
def state_and_frozen(seed=0):
  params = {
    'backbone': tiny.random_params(tiny.config()),
    'prompt': {'prompt': jnp.zeros((2, 32))},
  }
  trainable, frozen = split(params)
  return create_state(trainable, UPDATE, seed), frozen


@functools.cache
def step(dropout):
  model = PromptedT5(T5(with_dropout(tiny.config(), dropout)), NoisyPrompt())
  objectives = [CrossEntropy(model, dropout=dropout > 0)]

  @jax.jit
  def run(state, frozen, constants, batch):
    (state,), (metrics,) = train_step(
      [state], frozen, [{}], [constants], [batch],
      objectives=objectives, updates=[UPDATE], microbatches=1,
    )  # fmt: skip
    return state, metrics

  return run


def test_noise_is_drawn_in_training_without_dropout_and_anew_at_every_step():
  state, frozen = state_and_frozen()
  seen = []
  for _ in range(3):
    state, metrics = step(0.0)(state, frozen, {}, BATCH)
    seen.append(float(metrics['aux_loss']))
  assert len({round(x, 4) for x in seen}) == 3
  # At inference the model asks for no random numbers, and the method draws none.
  model = PromptedT5(T5(tiny.config()), NoisyPrompt())
  variables = {'params': {'backbone': frozen['backbone'], 'prompt': {'prompt': np.zeros((2, 32))}}}
  assert jax.jit(model.apply)(variables, BATCH)[1] == 0


def test_noise_is_the_same_whether_or_not_the_backbone_drops_out():
  state, frozen = state_and_frozen()
  without, dropping = (step(rate)(state, frozen, {}, BATCH)[1] for rate in (0.0, 0.5))
  assert without['aux_loss'] == dropping['aux_loss']
  assert abs(float(without['cross_entropy'] - dropping['cross_entropy'])) > 1e-3


def test_prompts_trained_at_once_draw_as_they_do_alone():
  states = [state_and_frozen(seed)[0] for seed in (0, 1)]
  frozen = state_and_frozen()[1]
  objective = CrossEntropy(PromptedT5(T5(tiny.config()), NoisyPrompt()))
  at_once = functools.partial(
    train_step, objectives=[objective] * 2, updates=[UPDATE] * 2, microbatches=1
  )
  _, found = jax.jit(at_once)(states, frozen, [{}] * 2, [{}] * 2, [BATCH] * 2)
  alone = [step(0.0)(state, frozen, {}, BATCH)[1]['aux_loss'] for state in states]
  assert abs(float(alone[0] - alone[1])) > 1e-3
  np.testing.assert_allclose([m['aux_loss'] for m in found], alone, rtol=1e-5)


def test_a_method_that_draws_at_inference_fails():
  class Careless(PromptMethod):
    @nn.compact
    def __call__(self, ctx):
      return Injections(aux_loss=jax.random.normal(self.make_rng('prompt')))

  model = PromptedT5(T5(tiny.config()), Careless())
  variables = {'params': {'backbone': tiny.random_params(tiny.config())}}
  with pytest.raises(Exception, match='prompt'):
    jax.eval_shape(model.apply, variables, BATCH)
