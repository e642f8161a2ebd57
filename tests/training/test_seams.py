"""Another objective and another update in the same loop: trained, resumed to the same bytes."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_model import ToyModel, toy_batch, toy_variables
from toy_run import ToyStream, toy_members, toy_train, toy_train_members

from prompt_jax.training import optim
from prompt_jax.training.losses import Loss
from prompt_jax.training.objective import Averaged, BatchLoss, CrossEntropy, split
from prompt_jax.training.records import read_records

OPTIONS = {
  'steps': 12,
  'save_every': 4,
  'eval_every': 6,
  'log_every': 1,
  'metric': 'loss',
  'mode': 'min',
  'microbatches': 2,
}


def distillation(variables, batch, rng):
  """Cross entropy and, of the same weight, the divergence from a teacher: another prompt."""
  del rng
  student, _ = ToyModel().apply(variables, batch)
  params = {**variables['params'], 'prompt': toy_variables(7)['params']['prompt']}
  teacher, _ = ToyModel().apply({**variables, 'params': params}, batch)
  log_p, log_q = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
  target = jnp.take_along_axis(log_p, batch.decoder_target_tokens[..., None], -1)[..., 0]
  weights = batch.decoder_loss_weights
  mean = lambda x: jnp.sum(weights * x) / jnp.sum(weights)
  divergence = mean(jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1))
  return mean(-target) + divergence, {'divergence': divergence}


@dataclasses.dataclass(frozen=True)
class EvolutionStrategy:
  """A gradient from values of the loss alone (Salimans et al. 2017, arXiv 1703.03864).

  The mean over antithetic pairs of e (f(x + s e) - f(x - s e)) / 2 s, e standard normal.
  """

  pairs: int = 16
  scale: float = 0.1

  def __call__(self, loss, trainable, state, rng):
    del state
    flat, unravel = jax.flatten_util.ravel_pytree(trainable)
    noise = jax.random.normal(rng, (self.pairs, flat.size))

    def difference(e):
      up, _ = loss(unravel(flat + self.scale * e), rng)
      down, _ = loss(unravel(flat - self.scale * e), rng)
      return (up - down) / (2 * self.scale)

    weights = jax.lax.map(difference, noise)
    value, metrics = loss(trainable, rng)
    return unravel(weights @ noise / self.pairs), {**metrics, 'loss': value}


SEAMS = {
  'objective': lambda: {'objective': Averaged(distillation)},
  'update': lambda: {'update': optim.Update(optax.adam(0.1), EvolutionStrategy())},
}


@pytest.fixture(scope='module', params=SEAMS)
def seam(request):
  return SEAMS[request.param]


@pytest.fixture(scope='module')
def finished(seam, tmp_path_factory):
  return toy_train(tmp_path_factory.mktemp('whole'), **seam(), **OPTIONS, stream=Fixed())


class Fixed(ToyStream):
  """The same batch at every step, on which the loss falls monotonously enough to be asserted."""

  def __iter__(self):
    for _ in super().__iter__():
      yield toy_batch(8)


def test_the_loop_trains_by_it(seam, finished):
  trained = [r for r in read_records(finished.folder / 'metrics.jsonl') if r['kind'] == 'train']
  assert len(trained) == OPTIONS['steps']
  assert trained[-1]['loss'] < trained[0]['loss'] - 0.02
  assert all(r['examples'] == 8 for r in trained)
  by_gradient = 'objective' in seam()
  assert ('grad_norm' in trained[0]) == by_gradient
  assert ('divergence' in trained[0]) == by_gradient


def test_a_resumed_run_ends_with_the_same_bytes(seam, finished, tmp_path):
  toy_train(tmp_path, **seam(), **{**OPTIONS, 'steps': 5}, stream=Fixed())
  toy_train(tmp_path, **seam(), **OPTIONS, stream=Fixed())
  for name in ('prompt.safetensors', 'last.safetensors'):
    assert (tmp_path / name).read_bytes() == (finished.folder / name).read_bytes()


def test_prompts_at_once_are_those_of_runs_of_their_own(seam, finished, tmp_path):
  given = seam()
  members = [dataclasses.replace(m, stream=Fixed(), **given) for m in toy_members((0.3, 0.3))]
  first = dataclasses.replace(members[0], objective=toy_objective(given))
  results = toy_train_members(tmp_path, [first, members[1]], **OPTIONS)
  found, want = results[0].trainable['prompt']['prompt'], finished.trainable['prompt']['prompt']
  np.testing.assert_allclose(found, want, atol=2e-3)
  assert np.abs(results[1].trainable['prompt']['prompt'] - found).max() > 0.1


@pytest.mark.parametrize('reads_state', [True, False])
def test_an_estimate_is_given_the_state_if_it_reads_it(reads_state, tmp_path):
  """As a method does that adapts the distribution it samples from."""

  def estimate(loss, trainable, state, rng):
    found, metrics = optim.gradient(loss, trainable, state, rng)
    count = 10.0 + state[0].count if reads_state else jnp.float32(state == ())
    return found, {**metrics, 'count': count}

  update = optim.Update(optax.adam(0.1), estimate, reads_state)
  members = [dataclasses.replace(m, update=update) for m in toy_members((0.3, 0.3))]
  toy_train_members(tmp_path, members, **{**OPTIONS, 'steps': 3, 'eval_every': 0})
  records = read_records(tmp_path / 'seed_1' / 'metrics.jsonl')
  counts = [r['count'] for r in records if r['kind'] == 'train']
  assert counts == ([10, 11, 12] if reads_state else [1, 1, 1])


def toy_objective(given):
  return given.get('objective') or CrossEntropy(ToyModel(), Loss(), dropout=True)


@pytest.mark.parametrize('microbatches', [1, 2, 4])
def test_a_plain_function_is_averaged_over_microbatches(microbatches):
  def mean_weight(variables, batch, rng):
    prompt = variables['params']['prompt']['prompt']
    value = jnp.mean(batch.encoder_input_tokens) * jnp.sum(prompt)
    return value, {'twice': 2 * value}

  batch, variables = toy_batch(8), toy_variables()
  trainable, frozen = split(variables['params'])
  loss = BatchLoss(Averaged(mean_weight), frozen, variables['constants'], batch, microbatches)
  value, metrics = loss(trainable, jax.random.key(0))
  gradient, again = loss.gradient(trainable, jax.random.key(0))
  want = np.mean(batch.encoder_input_tokens) * np.sum(trainable['prompt']['prompt'])
  close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
  close(value, want)
  close(metrics['twice'], 2 * want)
  close(again['loss'], want)
  close(gradient['prompt']['prompt'], np.mean(batch.encoder_input_tokens))
  assert metrics['examples'] == 8


def test_a_value_is_that_of_the_gradient():
  """What a gradient-free update sees is what a gradient is taken of."""
  batch, variables = toy_batch(8), toy_variables()
  trainable, frozen = split(variables['params'])
  objective = CrossEntropy(ToyModel(), Loss(normalization='examples'), dropout=True)
  loss = BatchLoss(objective, frozen, variables['constants'], batch, 4)
  value, metrics = jax.jit(loss)(trainable, jax.random.key(3))
  _, others = jax.jit(loss.gradient)(trainable, jax.random.key(3))
  assert metrics.keys() == others.keys()
  for name in metrics:
    np.testing.assert_allclose(metrics[name], others[name], rtol=1e-5)
  np.testing.assert_allclose(value, others['loss'], rtol=1e-5)
