"""What a method sees of the input: what it declares, and nothing else, wherever it is called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.injections import READS, Injection, Injections
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.base import PromptMethod, first_values, materialise
from prompt_jax.prompts.methods.multitask.mpt import MPT
from prompt_jax.prompts.methods.multitask.task_prompts import TaskPrompts
from prompt_jax.runs.packing import slots
from prompt_jax.testing import tiny
from tests.shared import facts

CONFIG = tiny.config()
TOKENS = tiny.batch().encoder_input_tokens


class Cheat(PromptMethod):
  """Reads `field` without saying so."""

  field: str = 'embeds'

  def __call__(self, ctx):
    value = getattr(ctx, self.field)
    return Injections(encoder=Injection(prefix=jnp.zeros((1, value.shape[0], 32))))


class Spy(PromptMethod):
  """Keeps the context that it was given, and declares what a subclass says."""

  def __call__(self, ctx):
    seen.append(ctx)
    return Injections()


seen: list = []


ALL = (*READS, 'task_id')


def model_with(method):
  return PromptedT5(T5(CONFIG), method), {'params': {'backbone': tiny.random_params(CONFIG)}}


@pytest.mark.parametrize('field', ALL)
def test_a_read_that_is_not_declared_fails_everywhere_and_is_named(field):
  method = Cheat(field)
  model, variables = model_with(method)
  calls = (
    lambda: jax.eval_shape(lambda v: model.apply(v, TOKENS, method='injections'), variables),
    lambda: jax.eval_shape(lambda v: model.apply(v, tiny.batch()), variables),
    lambda: materialise(method, {}, {}, CONFIG.sizes),
    lambda: first_values(method, jax.random.key(0), CONFIG.sizes),
    lambda: slots(model, variables),
  )
  for call in calls:
    with pytest.raises(UserError, match=facts('Cheat', 'depends_on', f'ctx.{field}')):
      call()


@pytest.mark.parametrize('declared', [(), ('embeds', 'mask'), ('pooled',), ('task_id',), ALL])
def test_a_method_sees_what_it_declares(declared):
  kind = type('Reads', (Spy,), {'depends_on': frozenset(declared)})
  model, variables = model_with(kind())
  seen.clear()
  task = jnp.arange(3)
  model.apply(variables, TOKENS, {'task_id': task}, method='injections')
  first_values(kind(), jax.random.key(0), CONFIG.sizes)
  for ctx in seen:
    assert {name for name in ALL if getattr(ctx, name) is not None} == set(declared)
    assert ctx.input_dims == ctx.stacks['encoder'] == CONFIG.sizes.stacks['encoder']
    assert not ctx.train
  if declared == ALL:
    (states,) = model.apply(variables, TOKENS, {'task_id': task}, method='encode').all_states
    got = seen[0]
    np.testing.assert_array_equal(got.tokens, TOKENS)
    np.testing.assert_array_equal(got.mask, TOKENS > 0)
    np.testing.assert_array_equal(got.features['task_id'], task)
    np.testing.assert_allclose(got.hidden, states, atol=1e-5)
    for row, n in enumerate(np.sum(TOKENS > 0, axis=1)):
      np.testing.assert_allclose(got.pooled[row], states[row, :n].mean(0), atol=1e-5)
    table = variables['params']['backbone']['token_embedder']['embedding']
    np.testing.assert_array_equal(got.embeds, table[TOKENS])


def test_an_error_of_the_method_itself_keeps_its_words_and_its_place():
  class Broken(PromptMethod):
    def __call__(self, ctx):
      raise TypeError('a mistake of its own')

  with pytest.raises(UserError, match=facts('Broken', 'a mistake of its own', __file__)) as e:
    first_values(Broken(), jax.random.key(0), CONFIG.sizes)
  assert isinstance(e.value.__cause__, TypeError)


@pytest.mark.parametrize('method', [MPT(tasks=2, length=4), TaskPrompts(tasks=2, length=4)])
def test_inputs_that_do_not_say_their_task_are_told_where_prompts_are(method):
  model, variables = model_with(method)
  with pytest.raises(UserError, match=facts(type(method).__name__, 'task_prompts')):
    model.apply(variables, TOKENS, method='injections')


def test_a_read_that_neither_a_model_nor_the_examples_give_is_refused():
  kind = type('Reads', (Spy,), {'depends_on': frozenset({'embed'})})
  model, variables = model_with(kind())
  with pytest.raises(UserError, match=facts('embed', 'embeds', 'column')):
    model.apply(variables, TOKENS, method='injections')
