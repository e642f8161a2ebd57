"""The prompt method that a model recommends is the default on it, and on no other."""

import json
import pathlib

import pytest

import prompt_jax
from prompt_jax.cli import arguments
from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config
from prompt_jax.configuration import population as of_population
from prompt_jax.configuration.description import value_of
from prompt_jax.configuration.run_files import Request
from prompt_jax.errors import UserError
from prompt_jax.export.convert import convert
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.runs.train import train as train_run
from tests.shared import facts

EMBEDDED = pathlib.Path(prompt_jax.__file__).parent / 'embedded'
ADVICE = json.loads((EMBEDDED / 'config.json').read_text())['tuning']
ROWS = [(f'it was {i}', 'ab'[i % 2]) for i in range(40)]


def train(bindings=(), files=(), **settings):
  found = config.load('train', train_run, Request({'DATA': ROWS, **settings}, bindings, files))
  method = found.arguments['prompt']
  rate = value_of(found.record.settings, 'LEARNING_RATE')
  return found, type(method).__name__, getattr(method, 'length', None), rate


def folder_with(tmp_path, **tuning):
  about = {'format': 'prompt_jax', 'tuning': tuning}
  (tmp_path / 'config.json').write_text(json.dumps(about))
  return str(tmp_path)


def test_the_default_is_what_the_model_recommends():
  found, method, length, rate = train()
  assert (method, length, rate) == ('PrefixTuning', ADVICE['length'], ADVICE['learning_rate'])
  (note,) = found.record.notes
  assert ADVICE['prompt'] in note
  assert 'embedded' in note
  # The record names the method: a run is repeated from it alone.
  assert 'PrefixTuning' in found.record.settings['PROMPT']


def test_the_command_line_has_the_same_default():
  found = config.load(
    'train', train_run, request_of(arguments.parse(['train', '--task', 'docstrings_iid']))
  )
  assert type(found.arguments['prompt']).__name__ == 'PrefixTuning'
  assert found.record.notes


def test_the_embedded_model_is_advised_where_no_model_is_given():
  assert train(MODEL=None)[1] == 'PrefixTuning'


@pytest.mark.parametrize(
  ('given', 'recommended'),
  [
    ({'PROMPT': 'prefix'}, ''),
    ({'PROMPT': PrefixTuning()}, ''),
    ({'files': ['prompts/prefix.gin']}, ''),
    ({'PROMPT': 'input'}, 'prefix'),
    ({'PROMPT': InputPrompt()}, 'prefix'),
    ({'PROMPT': None, 'TRAINABLE': ['.*']}, ''),
  ],
)
def test_what_is_used_already_is_not_recommended(given, recommended):
  assert train(**given)[0].record.recommended == recommended


def test_a_population_has_the_same_default():
  found = of_population.load(Request({'DATA': ROWS, 'LENGTHS': [2, 3]}))
  assert [(type(v.prompt).__name__, v.prompt.length) for v in found.arguments['variants']] == [
    ('PrefixTuning', 2), ('PrefixTuning', 3),
  ]  # fmt: skip
  assert found.record.notes


@pytest.mark.parametrize(
  'given',
  [
    {'PROMPT': 'input'},
    {'bindings': [('PROMPT', '@InputPrompt()')]},
    {'files': ['runs/published.gin']},
    {'PROMPT': InputPrompt(length=100)},
  ],
  ids=['name', 'binding', 'file', 'object'],
)
def test_what_is_given_wins(given):
  found, method, length, rate = train(**given)
  assert (method, length, found.record.notes) == ('InputPrompt', 100, ())
  assert rate in (3.0, 0.3)  # of the method, or of the file


def test_settings_of_the_method_are_still_the_users():
  assert train(PROMPT_LENGTH=7, LEARNING_RATE=0.5)[1:] == ('PrefixTuning', 7, 0.5)
  found, method, _, rate = train(TRAINABLE='all')
  assert (method, rate, found.record.notes) == ('NoneType', 0.001, ())


def test_a_model_that_recommends_nothing_keeps_the_published_default(tmp_path):
  (tmp_path / 'config.json').write_text(json.dumps({'format': 'prompt_jax'}))
  found, method, length, rate = train(MODEL=str(tmp_path))
  assert (method, length, rate, found.record.notes) == ('InputPrompt', 100, 3.0, ())


def test_another_model_may_recommend_another_method(tmp_path):
  name = folder_with(tmp_path, prompt='deep', length=5, learning_rate=0.5)
  assert train(MODEL=name)[1:] == ('DeepPrompt', 5, 0.5)
  assert train([('MODEL', repr(name))])[1:] == ('DeepPrompt', 5, 0.5)


@pytest.mark.parametrize(
  ('tuning', 'words'),
  [
    ({'prompt': 'prefx'}, ('prefx', 'prefix')),
    ({'length': 5}, ('tuning', 'prompt')),
    ({'prompt': 'deep', 'rate': 1.0}, ('rate', 'learning_rate')),
    ({'prompt': 'deep', 'length': '5'}, ('length', "'5'")),
  ],
)
def test_a_bad_recommendation_is_refused(tmp_path, tuning, words):
  with pytest.raises(UserError, match=facts(*words)):
    train(MODEL=folder_with(tmp_path, **tuning))


def test_a_converted_copy_recommends_the_same(tmp_path):
  convert(
    'embedded', str(tmp_path / 'copy'), to='native', vocabulary=None, architecture=None,
    dtype='bfloat16', verify='values', device='cpu',
  )  # fmt: skip
  assert train(MODEL=str(tmp_path / 'copy'))[1] == 'PrefixTuning'
