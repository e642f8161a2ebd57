"""Methods that read features of an example: their equations, and that the features decide."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from prompt_jax.batch import Batch
from prompt_jax.errors import UserError
from prompt_jax.injections import Context
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts import base, tables
from prompt_jax.prompts.initializers import Normal
from prompt_jax.prompts.methods.multitask.factored import Factored
from prompt_jax.prompts.methods.prefix.control_prefixes import ControlPrefixes
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.testing import tiny
from prompt_jax.training.losses import Loss
from prompt_jax.training.objective import CrossEntropy, split
from prompt_jax.training.optim import Update
from prompt_jax.training.step import create_state, train_step
from tests.shared import facts

CONFIG = tiny.config()
SIZES = CONFIG.sizes
RNG = np.random.default_rng(0)


def context(**features):
  ids = {name: jnp.asarray(of, jnp.int32) for name, of in features.items()}
  return Context(features=ids, stacks=SIZES.stacks)


def moved(method, ctx):
  """Its parameters, random."""
  variables = method.init(jax.random.key(0), ctx)
  return jax.tree.map(lambda x: RNG.normal(size=x.shape).astype(np.float32), variables['params'])


ATTRIBUTES = {'attributes': ('style', 'topic'), 'values': (3, 2), 'length': 4, 'rows': 2}


def test_control_prefixes_are_the_rows_of_the_values_before_those_of_the_task():
  method = ControlPrefixes(table=tables.Plain(), **ATTRIBUTES)
  ctx = context(style=[2, 0], topic=[1, 1])
  params = moved(method, ctx)
  found = method.apply({'params': params}, ctx)
  for name, dims in (('encoder', 'encoder'), ('decoder', 'decoder'), ('cross', 'decoder')):
    table = params[name]['prompt']  # [L, 2, 4 + 2 * 3 + 2 * 2, N D]
    for row, (style, topic) in enumerate(((2, 1), (0, 1))):
      of_style, of_topic = (4 + 2 * style + np.arange(2), 10 + 2 * topic + np.arange(2))
      want = table[:, :, np.r_[of_topic, of_style, :4]]
      kv = getattr(found, name).kv[:, :, row]
      np.testing.assert_array_equal(kv.reshape(want.shape), want)
    assert kv.shape[-2:] == (SIZES.stacks[dims].kv_heads, SIZES.stacks[dims].D)


def test_control_prefixes_of_one_value_are_prefix_tuning_with_more_rows():
  table = tables.Mlp(hidden=8)
  one = ControlPrefixes(attributes=('style',), values=(1,), length=4, rows=2, table=table)
  params = moved(one, context(style=[0]))
  found = one.apply({'params': params}, context(style=[0]))
  plain = PrefixTuning(length=6, table=table).apply({'params': params}, context())
  for name in ('encoder', 'decoder', 'cross'):  # the same rows; those of the value stand first
    a, b = getattr(found, name).kv, getattr(plain, name).kv
    np.testing.assert_allclose(a, np.roll(b, 2, axis=3), atol=1e-6)


def test_examples_that_differ_in_an_attribute_differ_in_its_rows():
  method = ControlPrefixes(table=tables.Mlp(hidden=8), **ATTRIBUTES)
  ctx = context(style=[0, 1], topic=[1, 1])
  kv = method.apply({'params': moved(method, ctx)}, ctx).cross.kv
  differs = np.any(np.asarray(kv[:, :, 0] != kv[:, :, 1]), axis=(0, 1, 3, 4))
  np.testing.assert_array_equal(differs, [False, False, True, True, False, False, False, False])


@pytest.mark.parametrize(
  ('settings', 'says'),
  [
    ({'attributes': ()}, ('attributes', '()')),
    ({'attributes': ('a', 'a')}, ('attributes', "('a', 'a')")),
    ({'rows': 0}, ('rows', '0')),
    ({'values': (2, 2)}, ('values', '(2, 2)')),
  ],
)
def test_settings_of_control_prefixes_that_make_no_sense_are_refused(settings, says):
  with pytest.raises(UserError, match=facts('ControlPrefixes', *says)):
    base.first_values(ControlPrefixes(length=4, **settings), jax.random.key(0), SIZES)


def test_factored_prompts_are_the_rows_of_each_feature():
  method = Factored(features=('language', 'task_id'), values=(3, 2), length=4)
  ctx = context(language=[2, 0, 2], task_id=[0, 0, 1])
  params = moved(method, ctx)
  found = method.apply({'params': params}, ctx).encoder.prefix
  of_language, of_task = params['language']['prompt'], params['task_id']['prompt']
  pairs = zip((2, 0, 2), (0, 0, 1), strict=True)
  want = np.stack([np.concatenate([of_language[i], of_task[k]]) for i, k in pairs])
  np.testing.assert_array_equal(found, want)
  packed = context(language=[[2, 0], [2, 2]], task_id=[[0, 0], [1, 1]])
  found = method.apply({'params': params}, packed).encoder.prefix
  np.testing.assert_array_equal(found[:, 0], want[[0, 2]])
  np.testing.assert_array_equal(found[0, 1], want[1])
  with pytest.raises(UserError, match=facts('Factored.features', "('a', 'a')")):
    base.first_values(Factored(features=('a', 'a')), jax.random.key(0), SIZES)


def test_factored_prompts_learn_what_two_features_say_together():
  language, task = np.asarray([0, 0, 1, 1]), np.asarray([0, 1, 0, 1])
  words = 10 + 20 * language + task
  method = Factored(features=('language', 'task_id'), values=(2, 2), length=2)
  assert learned(method, {'language': language, 'task_id': task}, words) == 1


@jax.numpy_dtype_promotion('standard')  # optax's Adam needs it
def learned(method, features, wanted, steps=150, rate=0.03) -> float:
  """The share of examples whose answer is learned; inputs are the same for all."""
  count = len(wanted)
  tokens = jnp.tile(jnp.asarray([[5, 6, 7, 1]], jnp.int32), (count, 1))
  targets = jnp.asarray(wanted, jnp.int32)[:, None]
  ones = jnp.ones(targets.shape, jnp.float32)
  ids = {name: jnp.asarray(of, jnp.int32) for name, of in features.items()}
  batch = Batch(tokens, jnp.zeros_like(targets), targets, ones, ids)
  model = PromptedT5(T5(CONFIG), method)
  variables = jax.jit(model.init)({'params': jax.random.key(0)}, batch)
  update, (trainable, frozen) = Update(optax.adam(rate)), split(variables['params'])
  step = functools.partial(
    train_step, objectives=[CrossEntropy(model, Loss(z_loss=0.0))], updates=[update]
  )
  constants = variables.get('constants', {})
  go = jax.jit(lambda state: step([state], frozen, [{}], [constants], [batch])[0][0])
  state = create_state(trainable, update, seed=0)
  for _ in range(steps):
    state = go(state)
  params = {**frozen, **state.trainable}
  logits, _ = jax.jit(model.apply)({'params': params, 'constants': constants}, batch)
  return float(jnp.mean(jnp.argmax(logits[:, 0], -1) == targets[:, 0]))


def test_control_prefixes_learn_what_only_the_attribute_says():
  styles = np.arange(12) % 4
  words = np.asarray([10, 20, 30, 40])[styles]
  table = tables.Mlp(hidden=16, initializer=Normal())
  method = ControlPrefixes(attributes=('style',), values=(4,), length=2, table=table)
  assert learned(method, {'style': styles}, words) >= 0.95
  assert learned(PrefixTuning(length=4, table=table), {}, words) <= 0.25


def test_features_that_nobody_reads_cost_nothing():
  model = PromptedT5(T5(CONFIG), PrefixTuning(length=4, table=tables.Plain()))
  batch = tiny.batch()
  with_more = batch.replace(features={'style': jnp.arange(3), 'task_id': jnp.arange(3)})
  variables = jax.eval_shape(model.init, jax.random.key(0), batch)
  said = [jax.jit(model.apply).lower(variables, b).as_text() for b in (batch, with_more)]
  assert said[0] == said[1]
