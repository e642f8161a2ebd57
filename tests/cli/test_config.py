"""gin: what is found, what wins, and what is refused. Nothing is trained: the entry is replaced."""

import argparse

import pytest
from gin import config as gin_config

from prompt_jax.cli import arguments
from prompt_jax.configuration import config
from prompt_jax.errors import UserError
from prompt_jax.runs import train
from tests.shared import facts, mentions

NONE = ['--data', 'x.tsv']  # read only when the task is made


def load(*argv: str, includes=()) -> argparse.Namespace:
  args = arguments.parse(['train', *NONE, *argv])
  config.load(args, train.train, includes)
  return args


def value(name: str):
  return gin_config.query_parameter(f'{name}/gin.macro.value')


def test_the_run_file_gives_the_defaults():
  load()
  assert value('STEPS') == 1000
  assert value('MODEL') == 'embedded'


def test_flags_win_over_files_and_settings_over_flags(tmp_path):
  (tmp_path / 'my.gin').write_text('STEPS = 7\nBATCH_SIZE = 3\nSEED = 9\n')
  load('--gin_file', str(tmp_path / 'my.gin'), '--steps=8', '--batch_size=4', '--gin.BATCH_SIZE=5')
  assert (value('STEPS'), value('BATCH_SIZE'), value('SEED')) == (8, 5, 9)


def test_a_prompt_is_a_file_of_the_package():
  load('--prompt=residual', includes=[('prompts', 'residual')])
  assert value('PROMPT_LENGTH') == 10
  built = value('PROMPT').scoped_configurable_fn()
  assert type(built.table).__name__ == 'Residual'


@pytest.mark.parametrize('name', config.names('prompts'))
def test_every_prompt_file_builds_a_method_and_reads_the_length(name):
  load('--length=3', includes=[('prompts', name)])
  assert value('PROMPT').scoped_configurable_fn().length == 3


@pytest.mark.parametrize('name', config.names('inits'))
def test_every_initialiser_file_reaches_the_prompt(name):
  load(includes=[('inits', name)])
  initializer = value('PROMPT').scoped_configurable_fn().table.initializer
  assert type(initializer).__name__.lower() == {
    'file': 'fromfile', 'class_labels': 'classlabels', 'sampled_vocabulary': 'sampledvocabulary',
    'matched_normal': 'matchednormal', 'positive_uniform': 'positiveuniform',
  }.get(name, name)  # fmt: skip


def test_search_paths_and_includes_of_a_users_file(tmp_path):
  (tmp_path / 'part.gin').write_text("include 'prompts/prefix.gin'\n")
  load('--gin_file=part.gin', f'--gin_search_paths={tmp_path}')
  assert type(value('PROMPT').scoped_configurable_fn()).__name__ == 'PrefixTuning'


def test_an_include_is_not_taken_from_the_working_directory(tmp_path, monkeypatch):
  (tmp_path / 'prompts').mkdir()
  (tmp_path / 'prompts/input.gin').write_text('PROMPT_LENGTH = 1\n')
  monkeypatch.chdir(tmp_path)
  load()
  assert value('PROMPT_LENGTH') == 100


@pytest.mark.parametrize(
  ('argv', 'words'),
  [
    (['--gin.STESP=3'], ["'STESP'", "'STEPS'"]),
    (['--gin.adafactor.decy=0.7'], ["'decy'", "'decay'"]),
    (['--gin.adafctor.decay=0.7'], ["'adafctor'", "'adafactor'"]),
    (['--gin.adamw.b1=0.8'], ['adamw']),
    (['--gin.MODEL=embedded'], ['quotes', '"embedded"']),
    (['--gin_file=models/t5_1_1/smal.gin'], ['models/t5_1_1/small.gin']),
    (['--gin_file=no_such.gin'], ['no_such.gin', 'directory']),
  ],
)
def test_a_mistake_names_what_is_near(argv, words):
  with pytest.raises(UserError) as e:
    load(*argv)
  for word in words:
    assert word in str(e.value)


def test_a_file_that_is_not_there_is_not_taken_for_one_with_another_name():
  with pytest.raises(UserError) as e:
    load('--gin_file=nothing.gin')
  assert 'Did you mean' not in str(e.value)


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    (['--gin.BATCH_SIZE="abc"'], ('BATCH_SIZE', "'abc'", 'whole number')),
    (['--gin.BATCH_SIZE=%STEPS', '--gin.STEPS=True'], ('STEPS', 'True', 'whole number')),
    (['--gin.STEPS=1.5'], ('STEPS', '1.5', 'whole number')),
    (['--gin.PATIENCE=2.5'], ('PATIENCE', '2.5', 'whole number', 'None')),
    (['--gin.DROPOUT=True'], ('DROPOUT', 'True', 'number')),
    (['--gin.adafactor.factored=1'], ('adafactor.factored', '1', 'True', 'False')),
    (['--gin.MODEL=1'], ('MODEL', '1', 'text', 'None')),
    (['--gin.LEARNING_RATE="x"'], ('LEARNING_RATE', "'x'", 'number')),
    (['--gin.PROMPT_LEARNING_RATE=()'], ('PROMPT_LEARNING_RATE', '()', 'number')),
    (['--gin.SEEDS="abc"'], ('SEEDS', "'abc'", 'list', 'None')),
    (['--gin.SEEDS=[0, 0.5]'], ('SEEDS', '[0, 0.5]', 'list', 'None')),
    (['--gin.SEEDS=3'], ('SEEDS', '3', 'list', 'None')),
    (['--gin.MESH="4x1"'], ('MESH', "'4x1'", 'list', 'None')),
    (['--gin.MODULES="x"'], ('MODULES', "'x'", 'list')),
    (['--gin.TRAINABLE="prompt/.*"'], ('TRAINABLE', "'prompt/.*'", 'list')),
    (['--gin.TASK=[1]'], ('TASK', '[1]', 'text', 'list', 'None')),
    (
      ['--gin.MIXING_RATES=[1]'],
      ('MIXING_RATES', '[1]', "{'a': 1}", 'None'),
    ),
    (['--gin.PROMPT_LENGTH="x"'], ('PROMPT_LENGTH', "'x'", 'whole number')),
    (['--gin.Loss.label_smoothing="x"'], ('Loss.label_smoothing', "'x'", 'number')),
    (['--gin.Loss.normalization=None'], ('Loss.normalization', 'None', 'text')),
    (['--gin.STEPS=%MINE'], ('MINE',)),
  ],
)
def test_a_value_of_another_type_is_refused(argv, message):
  with pytest.raises(UserError) as e:
    load(*argv)
  assert mentions(str(e.value), *message)


def test_a_whole_number_is_a_number():
  load('--gin.LEARNING_RATE=1', '--gin.Loss.normalization=64', '--gin.PATIENCE=3')
  assert value('LEARNING_RATE') == 1


def test_a_binding_without_effect_is_refused():
  load('--gin.InputPrompt.length=5')
  with pytest.raises(UserError, match=facts('InputPrompt', 'effect')):
    load('--gin.InputPrompt.length=5', includes=[('prompts', 'prefix')])


def test_a_misspelt_macro_in_a_users_file_is_refused(tmp_path):
  (tmp_path / 'my.gin').write_text('LERNING_RATE = 0.1\n')
  with pytest.raises(UserError, match='LEARNING_RATE') as e:
    load('--gin_file', str(tmp_path / 'my.gin'))
  assert 'my.gin' in str(e.value)


def test_a_macro_that_another_macro_reads_is_no_leftover(tmp_path):
  (tmp_path / 'my.gin').write_text('MINE = 12\nSTEPS = %MINE\n')
  load('--gin_file', str(tmp_path / 'my.gin'))
  assert value('STEPS').scoped_configurable_fn() == 12


def test_a_broken_file_is_told_with_its_name(tmp_path):
  (tmp_path / 'my.gin').write_text('STEPS = = 3\n')
  with pytest.raises(UserError, match=r'my\.gin'):
    load('--gin_file', str(tmp_path / 'my.gin'))


def test_an_unknown_prompt_lists_the_known():
  with pytest.raises(UserError, match="'prefix'"):
    load(includes=[('prompts', 'prefx')])


def test_a_run_that_never_began_binds_no_one(tmp_path, monkeypatch):
  for steps in (5, 6):
    monkeypatch.setattr(config, 'used', lambda steps=steps: f'STEPS = {steps}\n')
    config.record(tmp_path)
  assert 'STEPS = 6' in (tmp_path / 'operative_config.gin').read_text()


def test_a_folder_keeps_its_settings(tmp_path, monkeypatch):
  monkeypatch.setattr(config, 'used', lambda: '# Macros:\nSTEPS = 5\nNAMES = \\\n    [1]\n')
  config.record(tmp_path)
  (tmp_path / 'state/5').mkdir(parents=True)
  config.record(tmp_path)
  monkeypatch.setattr(config, 'used', lambda: 'STEPS = 6\nNAMES = [1]\n')
  with pytest.raises(UserError, match=facts('STEPS', '5', '6')) as e:
    config.record(tmp_path)
  assert 'NAMES' not in str(e.value)
  config.record(tmp_path, may_change=('STEPS',))
  assert 'STEPS = 6' in (tmp_path / 'operative_config.gin').read_text()
