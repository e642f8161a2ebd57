"""Prompts trained together are those trained apart, whatever is each one's own."""

import functools

import jax
import numpy as np
import optax
import pytest

from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.initialise import initialise_prompt, without_initializers
from prompt_jax.prompts.initializers import SampledVocabulary, Uniform, Zeros
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.tables import Plain
from prompt_jax.stacking import group_by_structure, map_stacked
from prompt_jax.testing import tiny
from prompt_jax.training import optim, schedules
from prompt_jax.training.losses import Loss
from prompt_jax.training.objective import CrossEntropy, split
from prompt_jax.training.optim import Update
from prompt_jax.training.step import apply_update, create_state, estimate_update, train_step
from prompt_jax.training.streams import Streams, pad_to_widest

CONFIG = tiny.config()
# Kernels at the scale of a trained model: with larger ones rounding errors grow layer by layer.
BACKBONE = jax.tree.map(
  lambda x: x / np.sqrt(8 * x.shape[-2]) if x.ndim == 3 else x, tiny.random_params(CONFIG)
)
STEPS = 2


# Compiling is nearly all of the time of these tests.
compiled = functools.partial(
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)


class One:
  """One prompt of a population, with defaults for what it does not vary."""

  def __init__(self, seed=0, method=None, tx=None, config=CONFIG, rows=4, inputs=9, targets=4):
    method = method or InputPrompt(length=3)
    model = PromptedT5(T5(config), method)
    embedding = BACKBONE['token_embedder']['embedding']
    key = jax.random.key(seed)
    prompt = initialise_prompt(model, key, embedding, tiny.Vocabulary())[0]
    self.update, self.model = Update(tx or optim.adafactor(0.3)), without_initializers(model)
    self.trainable, self.frozen = split({'backbone': BACKBONE, 'prompt': prompt})
    self.state = create_state(self.trainable, self.update, seed)
    self.batches = [
      jax.tree.map(np.asarray, tiny.batch(rows, inputs, targets, seed=100 * seed + n))
      for n in range(STEPS)
    ]


@functools.lru_cache(None)
def gradient_of(model, loss, dropout=False, microbatches=None):
  objective = CrossEntropy(model, loss, dropout)
  options = {'objective': objective, 'estimate': optim.gradient, 'microbatches': microbatches}
  return compiled(functools.partial(estimate_update, **options))


def apart(one, **options):
  """The two halves of `train_step`, of which the optimizer's need not be compiled."""
  gradient, state = gradient_of(one.model, **options), one.state
  for batch in one.batches:
    found, metrics = gradient(state, one.frozen, {}, batch)
    state, norm = apply_update(state, found, one.update)
  return state, {**metrics, 'update_norm': norm}


def step_of(population, loss=Loss(), dropout=False, **options):
  return functools.partial(
    train_step,
    objectives=[CrossEntropy(one.model, loss, dropout) for one in population],
    updates=[one.update for one in population],
    **options,
  )


def together(population, **options):
  step = compiled(step_of(population, **options))
  states, nothing = [one.state for one in population], [{} for _ in population]
  frozen = {'backbone': population[0].frozen['backbone']}
  for n in range(STEPS):
    batches = pad_to_widest([one.batches[n] for one in population])
    states, metrics = step(states, frozen, nothing, nothing, batches)
  return states, metrics


def test_padded_batches_reserve_no_further_prompt_rows():
  slots = {'prompt_slot': (2, 5), 'decoder_prompt_slot': (2, 4)}
  ones = {name: np.zeros(shape, np.int32) for name, shape in slots.items()}
  narrow = tiny.batch(2, 5, 4, seed=0).replace(**ones)
  padded, _ = pad_to_widest([narrow, tiny.batch(2, 7, 6, seed=1)])
  for name, (_, width) in slots.items():
    got = getattr(padded, name)
    assert got.shape[1] == width + 2
    assert (got[:, width:] == -1).all(), name
    assert (got[:, :width] == 0).all(), name


def assert_equal(population, **options):
  """Together is apart, and no two members end alike."""
  options = {'loss': Loss(), **options}
  at_once = options.pop('at_once', None)
  states, metrics = together(population, at_once=at_once, **options)
  ends = []
  for one, state, found in zip(population, states, metrics, strict=True):
    want, wanted = apart(one, **options)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)
    jax.tree.map(close, state.trainable, want.trainable)
    assert int(state.step) == STEPS
    for name in wanted:
      np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-7, err_msg=name)
    ends.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.trainable)]))
  for k, end in enumerate(ends):
    for other in ends[:k]:
      assert end.shape != other.shape or np.abs(end - other).max() > 1e-4


@pytest.mark.parametrize('at_once', [None, 1, 2, 3])
def test_seeds(at_once):
  """First values and examples; three prompts are not a multiple of two at once."""
  assert_equal([One(seed) for seed in range(3)], at_once=at_once)


def test_learning_rates_and_schedules():
  rates = (0.1, 1.0, schedules.linear(0.5, steps=4))
  assert_equal([One(tx=optim.adafactor(rate)) for rate in rates])


def test_weight_decays():
  assert_equal([One(tx=optim.adafactor(0.1, weight_decay=decay)) for decay in (0.0, 1e-2, 0.3)])


def test_optimizers_of_another_kind():
  assert_equal([One(tx=optim.adafactor(0.1)), One(tx=optim.adamw(0.1)), One(tx=optim.adamw(0.2))])


def test_initialisers_differ_and_the_model_does_not():
  tables = [
    Plain(initializer) for initializer in (Uniform(), SampledVocabulary(population=40), Zeros())
  ]
  with pytest.warns(UserWarning, match='norm'):
    population = [One(method=InputPrompt(length=3, table=table)) for table in tables]
  assert len({one.model for one in population}) == 1
  assert_equal(population)


def test_lengths_and_methods_are_stacks_of_their_own():
  methods = [InputPrompt(length=3), InputPrompt(length=5), DeepPrompt(length=2)]
  population = [One(seed, method) for method in methods for seed in (0, 1)]
  groups = group_by_structure(
    [one.trainable for one in population], [one.model for one in population]
  )
  assert groups == [[0, 1], [2, 3], [4, 5]]
  assert_equal(population)


def test_tasks_of_other_widths():
  assert_equal([One(0, inputs=6, targets=3), One(1, inputs=9, targets=4)])


def test_dropout_draws_from_each_prompts_own_key():
  config = CONFIG.__class__(**{**vars(CONFIG), 'dropout_rate': 0.2})
  population = [One(seed, config=config) for seed in range(2)]
  assert_equal(population, dropout=True, microbatches=2)
  assert_equal(population, dropout=True, at_once=1)


@pytest.mark.parametrize('normalization', ['sum', 'tokens', 'all_tokens', 'examples', 7.0])
def test_each_prompt_normalises_its_own_loss(normalization):
  population = [One(seed) for seed in range(2)]
  for one, weight in zip(population, (1.0, 0.25), strict=True):
    for n, batch in enumerate(one.batches):
      weights = batch.decoder_loss_weights * weight
      weights[0, n:] = 0
      one.batches[n] = batch.replace(decoder_loss_weights=weights)
  # SGD, as Adafactor would not see a factor.
  for one in population:
    one.update = Update(optax.sgd(0.05))
    one.state = create_state(one.trainable, one.update, 0)
  assert_equal(population, loss=Loss(normalization=normalization))


def test_a_frozen_part_of_a_prompt_is_its_own():
  """A pattern may leave out a part of the prompt: here the decoder's rows."""
  population = [One(seed, InputPrompt(length=3, decoder=True)) for seed in range(2)]
  step = compiled(step_of(population))
  states, own, wanted = [], [], []
  for one in population:
    trainable, rest = split(
      {'backbone': BACKBONE, 'prompt': one.trainable['prompt']}, ('prompt/encoder/.*',)
    )
    state = create_state(trainable, one.update, 0)
    states.append(state)
    own.append({'prompt': rest['prompt']})
    gradient, _ = gradient_of(one.model, loss=Loss())(state, rest, {}, one.batches[0])
    wanted.append(apply_update(state, gradient, one.update)[0])
  batches = [one.batches[0] for one in population]
  found, _ = step(states, {'backbone': BACKBONE}, own, [{}, {}], batches)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)
  for state, want in zip(found, wanted, strict=True):
    jax.tree.map(close, state.trainable, want.trainable)
    assert 'decoder' not in state.trainable['prompt']


def test_map_stacked_is_a_list_of_calls():
  trees = [{'x': np.arange(3.0) + k} for k in range(5)]
  for at_once in (None, 1, 2, 5, 9):
    found = map_stacked(lambda tree: tree['x'] ** 2, trees, at_once)
    np.testing.assert_array_equal(found, [tree['x'] ** 2 for tree in trees])


def test_memory_does_not_grow_with_the_prompts():
  """Temporary memory of the compiled step, in bytes."""

  def temporary(count, at_once):
    population = [One(seed, rows=8, inputs=40) for seed in range(count)]
    step = step_of(population, at_once=at_once)
    nothing = [{} for _ in population]
    frozen = {'backbone': BACKBONE}
    batches = [one.batches[0] for one in population]
    states = [one.state for one in population]
    lowered = jax.jit(step).lower(states, frozen, nothing, nothing, batches)
    return lowered.compile().memory_analysis().temp_size_in_bytes

  two = temporary(2, 1)
  assert temporary(6, 1) < 1.2 * two
  assert temporary(6, 6) > 2 * two


class Counting:
  """A stream of batches whose width and content follow its number."""

  def __init__(self, width):
    self.position = {'next': 0}
    self._width = width

  def restore(self, position):
    self.position = dict(position)

  def upcoming_shapes(self, count):
    return []

  def __iter__(self):
    while True:
      n = self.position['next']
      self.position = {'next': n + 1}
      yield jax.tree.map(np.asarray, tiny.batch(2, self._width, 3 + n % 2, seed=n))


def test_streams_give_one_batch_each_and_go_on_from_a_position():
  streams = Streams({'a': Counting(6), 'b': Counting(9)})
  batches = iter(streams)
  next(batches)
  position = streams.position
  want = next(batches)
  again = Streams({'a': Counting(6), 'b': Counting(9)})
  again.restore(position)
  jax.tree.map(np.testing.assert_array_equal, next(iter(again)), want)
  assert [b.encoder_input_tokens.shape for b in want] == [(2, 9), (2, 9)]
  narrow = jax.tree.map(np.asarray, tiny.batch(2, 6, 4, seed=1))
  np.testing.assert_array_equal(want[0].encoder_input_tokens[:, :6], narrow.encoder_input_tokens)
  assert not want[0].encoder_input_tokens[:, 6:].any()
