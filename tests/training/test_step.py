"""The pure step: what it changes, what it reports, and that microbatches change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_model import ToyModel, toy_batch, toy_variables

from prompt_jax.errors import UserError
from prompt_jax.training import objective
from prompt_jax.training.losses import Loss
from prompt_jax.training.objective import CrossEntropy
from prompt_jax.training.optim import Update, adafactor
from prompt_jax.training.step import create_state, train_step
from tests.shared import facts


def step_of_one(tx, loss=Loss(), dropout=False, **options):
  """`train_step` of one prompt, of (state, frozen, constants, batch)."""
  objective, update = CrossEntropy(ToyModel(), loss, dropout), Update(tx)

  @jax.jit
  def step(state, frozen, constants, batch):
    (state,), (metrics,) = train_step(
      [state], frozen, [{}], [constants], [batch],
      objectives=[objective], updates=[update], **options,
    )  # fmt: skip
    return state, metrics

  return step


def run(batch, tx=None, patterns=objective.PROMPT_ONLY, **options):
  tx = tx or optax.sgd(1.0)
  variables = toy_variables()
  trainable, frozen = objective.split(variables['params'], patterns)
  state = create_state(trainable, Update(tx), seed=0)
  return trainable, step_of_one(tx, **options)(state, frozen, variables['constants'], batch)


@pytest.mark.parametrize('normalization', ['sum', 'tokens', 'examples', 5.0])
def test_microbatches_give_the_gradient_of_the_whole_batch(normalization):
  batch = toy_batch(8)
  loss = Loss(normalization=normalization, label_smoothing=0.1)
  _, (whole, whole_metrics) = run(batch, loss=loss)
  before, (parts, parts_metrics) = run(batch, loss=loss, microbatches=4)
  a, b = (s.trainable['prompt']['prompt'] for s in (whole, parts))
  assert float(jnp.abs(a - before['prompt']['prompt']).max()) > 1e-3
  np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  for name in whole_metrics:
    np.testing.assert_allclose(whole_metrics[name], parts_metrics[name], rtol=1e-5, err_msg=name)


def test_metrics_are_those_of_the_model():
  batch = toy_batch(8)
  variables = toy_variables()
  _, (state, metrics) = run(batch, loss=Loss(z_loss=1e-2))
  logits, aux = ToyModel().apply(variables, batch)
  log_p = np.asarray(jax.nn.log_softmax(logits))
  weights, targets = batch.decoder_loss_weights, batch.decoder_target_tokens
  ce = -np.take_along_axis(log_p, targets[..., None], -1)[..., 0]
  mean = (weights * ce).sum() / weights.sum()
  z = (weights * 1e-2 * jax.nn.logsumexp(logits, -1) ** 2).sum() / weights.sum()
  right = (weights * (log_p.argmax(-1) == targets)).sum() / weights.sum()
  np.testing.assert_allclose(metrics['cross_entropy'], mean, rtol=1e-5)
  np.testing.assert_allclose(metrics['z_loss'], z, rtol=1e-5)
  np.testing.assert_allclose(metrics['aux_loss'], aux, rtol=1e-5)
  np.testing.assert_allclose(metrics['loss'], mean + z + aux, rtol=1e-5)
  np.testing.assert_allclose(metrics['token_accuracy'], right, rtol=1e-5)
  assert float(metrics['tokens']) == weights.sum()
  assert int(state.step) == 1


def test_other_patterns_train_other_leaves():
  batch = toy_batch(4)
  _, (state, _) = run(batch, patterns=('backbone/.*/bias',))
  assert objective.count(state.trainable) == 6 + 52
  assert 'prompt' not in state.trainable


def test_loss_falls_and_optimizer_holds_only_the_prompt():
  batch, tx = toy_batch(16), adafactor(0.3)
  variables = toy_variables()
  trainable, frozen = objective.split(variables['params'])
  state, step = create_state(trainable, Update(tx), seed=0), step_of_one(tx)
  losses = []
  for _ in range(30):
    state, metrics = step(state, frozen, variables['constants'], batch)
    losses.append(float(metrics['cross_entropy']))
  assert losses[-1] < losses[0] - 0.1
  moments = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.size > 1)
  assert moments == objective.count(trainable)


def test_dropout_is_off_unless_asked_for_and_follows_the_step():
  batch = toy_batch(4)
  losses = [float(run(batch, **o)[1][1]['loss']) for o in ({}, {}, {'dropout': True})]
  assert losses[0] == losses[1] != losses[2]
  variables = toy_variables()
  trainable, frozen = objective.split(variables['params'])
  state = create_state(trainable, Update(optax.sgd(0.0)), seed=0)
  step = step_of_one(optax.sgd(0.0), dropout=True)
  values = []
  for n in (0, 0, 1):
    _, metrics = step(state.replace(step=jnp.int32(n)), frozen, variables['constants'], batch)
    values.append(float(metrics['loss']))
  assert values[0] == values[1] != values[2]


def test_rows_must_divide():
  with pytest.raises(UserError, match=facts('6', '4')):
    run(toy_batch(6), microbatches=4)
