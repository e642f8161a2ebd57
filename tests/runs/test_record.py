"""The record of a run: what it holds, what it refuses, and what it describes."""

import dataclasses
import functools

import numpy as np
import optax
import pandas as pd
import pytest

from prompt_jax.configuration.description import describe, literal
from prompt_jax.data.example import TextExample, text_task
from prompt_jax.data.local_file import local_task
from prompt_jax.errors import UserError
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.runs.record import Record, differences, has_state
from prompt_jax.training.losses import Loss
from prompt_jax.training.optim import adafactor


def of(text: str) -> Record:
  return Record(text, 'prompt-jax train')


def test_a_run_that_never_saved_a_state_leaves_other_settings_free(tmp_path):
  for steps in (5, 6):
    of(f'STEPS = {steps}\n').write(tmp_path)
  assert 'STEPS = 6' in (tmp_path / 'operative_config.gin').read_text()
  assert (tmp_path / 'command.txt').read_text() == 'prompt-jax train\n'


@pytest.mark.parametrize('state', ['state/5', 'seed_0/state/5', 'runs/prefix_lm/state/5'])
def test_a_folder_keeps_its_settings(tmp_path, state):
  of('# Macros:\nSTEPS = 5\nNAMES = \\\n    [1]\n').write(tmp_path)
  assert not has_state(tmp_path)
  (tmp_path / state).mkdir(parents=True)
  assert has_state(tmp_path)
  of('STEPS = 5\nNAMES = [1]\n').check(tmp_path)
  other = of('STEPS = 6\nNAMES = [1]\nRATE = 0.1\n')
  with pytest.raises(UserError) as e:
    other.check(tmp_path)
  assert 'STEPS: 5 before, 6 now' in str(e.value)
  assert 'RATE: not set before, 0.1 now' in str(e.value)
  assert 'NAMES' not in str(e.value)
  assert e.value.parameters == ('output',)
  other.check(tmp_path, may_change=('STEPS', 'RATE'))
  other.write(tmp_path)
  assert 'STEPS = 6' in (tmp_path / 'operative_config.gin').read_text()


def test_where_one_of_our_modules_lies_is_no_setting():
  old = (
    'from prompt_jax.models import config as sizes\n'
    'import theirs.optim as mine\n'
    'A = @sizes.T5Config()\nsizes.T5Config.dim = 3\nmine.Thing.x = 1\nTEXT = "@sizes.a"\n'
  )
  new = old.replace('models import config', 'models.t5 import config').replace('sizes', 'config')
  new = new.replace('"@config.a"', '"@sizes.a"').replace('config as config', 'config')
  assert differences(old, new) == {}
  assert differences(old, new.replace('dim = 3', 'dim = 4')) == {'T5Config.dim': ('3', '4')}
  # A module of the user's own is one.
  other = new.replace('theirs.optim', 'theirs.other').replace('mine.', 'other.')
  assert set(differences(old, other)) == {'mine.Thing.x', 'other.Thing.x'}


def task(rows, name='mine'):
  read = functools.partial(list, [TextExample(text, label) for text, label in rows])
  return text_task(name, {'train': read}, ['a', 'b'], ['accuracy'])


def scaled(rate):
  def update(grads, state, params=None):
    return [rate * g for g in grads], state

  return optax.GradientTransformation(lambda params: (), update)


def bag(rate):
  return {'rate': rate}


@pytest.mark.parametrize(
  ('value', 'same', 'other'),
  [
    (Loss(), Loss(), Loss(label_smoothing=0.1)),
    (InputPrompt(length=3), InputPrompt(length=3), InputPrompt(length=4)),
    (adafactor(0.1), adafactor(0.1), adafactor(0.2)),
    (optax.adam(0.1), optax.adam(0.1), optax.adam(0.2)),
    (scaled(0.1), scaled(0.1), scaled(0.2)),
    (task([('x', 'a')]), task([('x', 'a')]), task([('y', 'a')])),
    (task([('x', 'a')]), task([('x', 'a')]), task([('x', 'a')], 'yours')),
    (
      local_task([(f'good {i}', 'ab'[i % 2]) for i in range(40)]),
      local_task([(f'good {i}', 'ab'[i % 2]) for i in range(40)]),
      local_task([(f'bad {i}', 'ab'[i % 2]) for i in range(40)]),
    ),
    (pd.DataFrame({'x': [1, 2]}), pd.DataFrame({'x': [1, 2]}), pd.DataFrame({'x': [1, 3]})),
    (np.arange(3), np.arange(3), np.arange(4)),
    ([('x', 'a')] * 100, [('x', 'a')] * 100, [('x', 'a')] * 101),
    (functools.partial(bag, 1), functools.partial(bag, 1), functools.partial(bag, 2)),
    (lambda x: x + 1, None, lambda x: x + 2),
  ],
)
def test_a_description_differs_when_what_is_computed_differs(value, same, other):
  if same is not None:
    assert literal(same) == literal(value)
  assert literal(other) != literal(value)
  assert len(literal(value)) < 20_000


def test_an_object_that_encloses_itself_is_described():
  @dataclasses.dataclass
  class Loop:
    me: object = None

  loop = Loop()
  loop.me = loop
  assert '...' in literal(loop)


def test_plain_values_describe_themselves():
  value = {'a': [1, 2.5, None, 'x', True], 'b': {'c': ()}}
  assert describe(value) == {'a': [1, 2.5, None, 'x', True], 'b': {'c': []}}
