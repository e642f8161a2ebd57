"""gin: what is found, what wins, and what is refused. Nothing is trained, and no data is read."""

import contextlib
import dataclasses

import pytest
from gin import config as gin_config

from prompt_jax.cli import arguments
from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config, run_files
from prompt_jax.errors import UserError
from prompt_jax.runs import train
from tests.shared import mentions

NONE = ['--data', 'x.tsv']  # read only when the task is made


@contextlib.contextmanager
def load(*argv: str, includes=()):
  """gin as it is while the arguments of a run are built."""
  request = request_of(arguments.parse(['train', *NONE, *argv]))
  with config.parsed('train', train.train, dataclasses.replace(request, includes=includes)):
    yield


def refused(*argv: str, includes=()) -> str:
  with pytest.raises(UserError) as e, load(*argv, includes=includes):
    pass
  return str(e.value)


def value(name: str):
  return gin_config.query_parameter(f'{name}/gin.macro.value')


def test_the_run_file_gives_the_defaults():
  with load():
    assert value('STEPS') == 1000
    assert value('MODEL') == 'embedded'


def test_flags_win_over_files_and_settings_over_flags(tmp_path):
  (tmp_path / 'my.gin').write_text('STEPS = 7\nBATCH_SIZE = 3\nSEED = 9\n')
  with load(
    '--gin_file', str(tmp_path / 'my.gin'), '--steps=8', '--batch_size=4', '--gin.BATCH_SIZE=5'
  ):
    assert (value('STEPS'), value('BATCH_SIZE'), value('SEED')) == (8, 5, 9)


def test_a_prompt_is_a_file_of_the_package():
  with load('--prompt=residual', includes=[('prompts', 'residual')]):
    assert value('PROMPT_LENGTH') == 10
    built = value('PROMPT').scoped_configurable_fn()
    assert type(built.table).__name__ == 'Residual'


# Methods inside the layers have no rows.
WITHOUT_LENGTH = ('adapter', 'bitfit', 'ia3', 'linear_adapter', 'lora', 'parallel_adapter')


@pytest.mark.parametrize('name', run_files.names('prompts'))
def test_every_prompt_file_builds_a_method_and_reads_the_length(name):
  if name in WITHOUT_LENGTH:
    with load(includes=[('prompts', name)]):
      assert not hasattr(value('PROMPT').scoped_configurable_fn(), 'length')
    with pytest.raises(UserError, match='length'), load('--length=3', includes=[('prompts', name)]):
      pass
    return
  with load('--length=3', includes=[('prompts', name)]):
    assert value('PROMPT').scoped_configurable_fn().length == 3


@pytest.mark.parametrize('name', run_files.names('inits'))
def test_every_initialiser_file_reaches_the_prompt(name):
  with load(includes=[('inits', name)]):
    initializer = value('PROMPT').scoped_configurable_fn().table.initializer
    assert type(initializer).__name__.lower() == {
      'file': 'fromfile', 'class_labels': 'classlabels', 'sampled_vocabulary': 'sampledvocabulary',
      'matched_normal': 'matchednormal', 'positive_uniform': 'positiveuniform',
    }.get(name, name)  # fmt: skip


def test_search_paths_and_includes_of_a_users_file(tmp_path):
  (tmp_path / 'part.gin').write_text("include 'prompts/prefix.gin'\n")
  with load('--gin_file=part.gin', f'--gin_search_paths={tmp_path}'):
    assert type(value('PROMPT').scoped_configurable_fn()).__name__ == 'PrefixTuning'


def test_an_include_is_not_taken_from_the_working_directory(tmp_path, monkeypatch):
  (tmp_path / 'prompts').mkdir()
  (tmp_path / 'prompts/input.gin').write_text('PROMPT_LENGTH = 1\n')
  monkeypatch.chdir(tmp_path)
  with load('--prompt=input'):
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
  message = refused(*argv)
  for word in words:
    assert word in message


def test_a_file_that_is_not_there_is_not_taken_for_one_with_another_name():
  assert 'Did you mean' not in refused('--gin_file=nothing.gin')


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
  assert mentions(refused(*argv), *message)


def test_a_whole_number_is_a_number():
  with load('--gin.LEARNING_RATE=1', '--gin.Loss.normalization=64', '--gin.PATIENCE=3'):
    assert value('LEARNING_RATE') == 1


def test_a_binding_without_effect_is_refused():
  with load('--gin.InputPrompt.length=5', '--prompt=input'):
    pass
  message = refused('--gin.InputPrompt.length=5', '--prompt=prefix')
  assert 'InputPrompt.length=5' in message
  assert 'effect' in message


def test_a_misspelt_macro_in_a_users_file_is_refused(tmp_path):
  (tmp_path / 'my.gin').write_text('LERNING_RATE = 0.1\n')
  message = refused('--gin_file', str(tmp_path / 'my.gin'))
  assert 'LEARNING_RATE' in message
  assert 'my.gin' in message


def test_a_macro_that_another_macro_reads_is_no_leftover(tmp_path):
  (tmp_path / 'my.gin').write_text('MINE = 12\nSTEPS = %MINE\n')
  with load('--gin_file', str(tmp_path / 'my.gin')):
    assert value('STEPS').scoped_configurable_fn() == 12


def test_a_broken_file_is_told_with_its_name(tmp_path):
  (tmp_path / 'my.gin').write_text('STEPS = = 3\n')
  assert 'my.gin' in refused('--gin_file', str(tmp_path / 'my.gin'))


def test_an_unknown_prompt_lists_the_known():
  assert "'prefix'" in refused(includes=[('prompts', 'prefx')])
