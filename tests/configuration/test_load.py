"""Settings as Python values, and gin's global state."""

import threading

import optax
import pytest
from gin import config as gin_config

from prompt_jax.configuration import config
from prompt_jax.configuration import population as of_population
from prompt_jax.configuration.run_files import Request
from prompt_jax.data.local_file import local_task
from prompt_jax.errors import UserError
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.runs.evaluate import evaluate
from prompt_jax.runs.task_choice import for_prompt
from prompt_jax.runs.train import train as train_run
from prompt_jax.training.losses import Loss
from tests.shared import facts

ROWS = [(f'it was {i}', 'ab'[i % 2]) for i in range(40)]


def train(**settings):
  return config.load('train', train_run, Request({'DATA': ROWS, **settings}, command='train(...)'))


def test_values_reach_the_run_as_they_are():
  prompt, loss, optimizer = InputPrompt(length=3), Loss(z_loss=0.1), optax.sgd(0.1)
  found = train(PROMPT=prompt, LOSS=loss, OPTIMIZER=optimizer, STEPS=7).arguments
  assert found['prompt'] is prompt
  assert found['loss'] is loss
  assert found['optimizer'] is optimizer
  assert found['settings'].steps == 7
  assert len(found['task'].splits) == 3


def test_a_name_is_a_file_of_the_package():
  found = train(PROMPT='prefix', PROMPT_LENGTH=4).arguments
  assert type(found['prompt']).__name__ == 'PrefixTuning'
  assert found['prompt'].length == 4


def test_tasks_are_values_too():
  task = local_task(ROWS, name='mine')
  found = config.load('train', train_run, Request({'TASK': task})).arguments
  assert found['task'] is task
  both = config.load(
    'train', train_run, Request({'TASK': [task, local_task(ROWS, name='yours')]})
  ).arguments
  assert [part.name for part in both['task'].parts] == ['mine', 'yours']
  with pytest.raises(UserError, match=facts('TASK', '3', 'Task')):
    config.load('train', train_run, Request({'TASK': 3}))


def test_all_and_prompt_stand_for_patterns():
  assert train(TRAINABLE='prompt').arguments['settings'].patterns == ('prompt/.*',)
  whole = train(TRAINABLE='all').arguments
  assert (whole['settings'].patterns, whole['prompt']) == (('.*',), None)
  with pytest.raises(UserError) as e:
    train(TRAINABLE='all', PROMPT_LENGTH=3)
  assert 'length' in e.value.parameters


@pytest.mark.parametrize(
  ('change', 'name'),
  [
    ({'LEARNING_RATE': 0.2}, 'LEARNING_RATE'),
    ({'LOSS': Loss(z_loss=0.5)}, 'LOSS'),
    ({'PROMPT': InputPrompt(length=4)}, 'PROMPT'),
    ({'OPTIMIZER': optax.sgd(0.2)}, 'OPTIMIZER'),
    ({'STEPS': 8}, 'STEPS'),
  ],
)
def test_the_record_holds_every_value(tmp_path, change, name):
  base = {
    'LEARNING_RATE': 0.1, 'LOSS': Loss(), 'PROMPT': InputPrompt(length=3),
    'OPTIMIZER': optax.sgd(0.1), 'DATA': list(ROWS), 'STEPS': 7,
  }  # fmt: skip
  # An optimizer of one's own does not read the rate.
  del base['OPTIMIZER' if name == 'LEARNING_RATE' else 'LEARNING_RATE']
  (tmp_path / 'state/4').mkdir(parents=True)
  train(**base).record.write(tmp_path)
  assert (tmp_path / 'command.txt').read_text() == 'train(...)\n'
  train(**base).record.check(tmp_path)
  with pytest.raises(UserError, match=facts(f'{name}:')):
    train(**{**base, **change}).record.check(tmp_path)


def test_an_unread_setting_is_refused():
  with pytest.raises(UserError, match=facts('STEPS', 'STESP')):
    train(STESP=3)
  with pytest.raises(UserError, match=facts('LEARNING_RATE')):
    train(OPTIMIZER=optax.sgd(0.1), LEARNING_RATE=0.1)


def test_the_labels_of_a_prompt_are_those_of_the_task():
  choose = config.load('eval', evaluate, Request({'DATA': ROWS})).arguments['choose_task']
  assert for_prompt(choose, {}).labels == ('a', 'b')
  assert for_prompt(choose, {'labels': ['b', 'a']}).labels == ('b', 'a')
  request = Request({'DATA': ROWS}, bindings=[('choose.words', "{'a': 'yes', 'b': 'no'}")])
  bound = config.load('eval', evaluate, request).arguments['choose_task']
  known = {'labels': ['off', 'on'], 'words': {'b': 'off', 'a': 'on'}}
  assert for_prompt(bound, known).labels == ('no', 'yes')
  assert for_prompt(choose, known).labels == ('off', 'on')


def test_a_population_has_its_variants_as_values():
  found = of_population.load(
    Request({'DATA': ROWS, 'LEARNING_RATES': [0.1, 0.2], 'GRID': {'DRAW': [0, 1]}, 'SHOTS': 2})
  ).arguments
  settings = [v.setting for v in found['variants']]
  assert settings == [{'LEARNING_RATE': r, 'DRAW': d} for r in (0.1, 0.2) for d in (0, 1)]
  assert len({id(v.task) for v in found['variants']}) == 4  # DRAW is of the task
  assert 'LEARNING_RATE = 0.2' in found['variants'][2].settings_text
  shared = of_population.load(Request({'DATA': ROWS, 'LEARNING_RATES': [0.1, 0.2]})).arguments
  assert len({id(v.task) for v in shared['variants']}) == 1


def test_gin_is_as_before():
  gin_config.clear_config()
  gin_config.parse_config('MINE = 3')
  before = gin_config.config_str()
  train()
  with pytest.raises(UserError):
    train(STEPS='many')
  assert gin_config.config_str() == before
  assert not gin_config.config_is_locked()
  gin_config.clear_config()


def test_threads_do_not_disturb_each_other():
  found: dict[int, list[int]] = {}

  def load(steps: int) -> None:
    found[steps] = [train(STEPS=steps).arguments['settings'].steps for _ in range(3)]

  threads = [threading.Thread(target=load, args=(n,)) for n in range(1, 5)]
  for t in threads:
    t.start()
  for t in threads:
    t.join()
  assert found == {n: [n] * 3 for n in range(1, 5)}


def test_parsing_ends_with_the_context():
  with config.parsed('train', train_run, Request({'STEPS': 3})):
    assert gin_config.query_parameter('STEPS/gin.macro.value') == 3
  with pytest.raises(ValueError, match='macro'):
    gin_config.query_parameter('STEPS/gin.macro.value')
