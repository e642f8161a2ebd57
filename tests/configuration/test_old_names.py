"""What version 0.1 wrote: run folders go on, and gin files of a user's own are read."""

import pathlib

import pytest

from prompt_jax.cli import arguments
from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config
from prompt_jax.configuration.gin_files import modernised
from prompt_jax.configuration.population import population
from prompt_jax.errors import UserError
from prompt_jax.runs.predict import infer
from prompt_jax.runs.train import train
from tests.shared import facts

# operative_config.gin of runs of version 0.1 with the flags below.
OLD = pathlib.Path(__file__).parent / 'version_0_1'
FLAGS = [
  '--model=bytes', '--data=reviews.tsv', '--batch_size=8', '--input_length=16', '--target_length=6',
  '--steps=4', '--gin.EVAL_EVERY=2', '--gin.SAVE_EVERY=2',
]  # fmt: skip
ENTRIES = {'train': train, 'population': population}
OWN = {
  'train': ['--output=old_train'],
  'population': ['--output=old_pop', '--seeds=0,1', '--learning_rates=0.1,0.3'],
}


def record(verb: str, *flags: str):
  """The record of a run; nothing is built, so no file need be there."""
  request = request_of(arguments.parse([verb, *FLAGS, *OWN[verb], *flags]))
  with config.parsed(verb, ENTRIES[verb], request):
    return config.record(ENTRIES[verb], request.command)


@pytest.fixture
def folder(tmp_path):
  """Makes a folder of an old run that has saved a state."""

  def make(verb: str) -> pathlib.Path:
    (tmp_path / 'state/4').mkdir(parents=True)
    (tmp_path / 'operative_config.gin').write_text((OLD / f'{verb}.gin').read_text())
    return tmp_path

  return make


@pytest.mark.parametrize('verb', ENTRIES)
def test_a_run_of_version_0_1_goes_on(folder, verb):
  found = record(verb)
  found.check(folder(verb))
  assert 'prompt_jax.cli' not in found.text


@pytest.mark.parametrize('verb', ENTRIES)
@pytest.mark.parametrize(
  ('flag', 'said'),
  [
    ('--batch_size=4', ('BATCH_SIZE', '8', '4')),
    ('--gin.adafactor.decay=0.7', ('adafactor.decay', '0.8', '0.7')),
    ('--prompt=prefix', ('PROMPT', 'PrefixTuning')),
    ('--gin.Loss.z_loss=0.1', ('Loss.z_loss', '0.0001', '0.1')),
  ],
)
def test_with_other_settings_it_does_not(folder, verb, flag, said):
  if verb == 'population' and said[0] in ('adafactor.decay', 'PROMPT'):
    pytest.skip('version 0.1 did not record the settings of the prompts of a population')
  with pytest.raises(UserError, match=facts(*said)):
    record(verb, flag).check(folder(verb))


def test_a_population_records_what_its_prompts_read(tmp_path):
  (tmp_path / 'state/4').mkdir(parents=True)
  record('population').write(tmp_path)
  for flag, said in (
    ('--gin.adafactor.decay=0.7', ('adafactor.decay', '0.8', '0.7')),
    ('--batch_size=4', ('BATCH_SIZE', '8', '4')),
  ):
    with pytest.raises(UserError, match=facts(*said)):
      record('population', flag).check(tmp_path)


def test_a_users_file_with_old_modules_is_read(tmp_path):
  (tmp_path / 'part.gin').write_text(
    'from __gin__ import dynamic_registration\n'
    'from prompt_jax.cli import compute\n'
    'from prompt_jax.cli import data as examples\n'
    'from prompt_jax.prompts import input_prompt\n'
    "compute.BaseModel.dtype = 'bfloat16'\n"
    "compute.Devices.device = 'cpu'\n"
    "examples.choose.words = {'good': 'yes', 'bad': 'no'}\n"
    'input_prompt.InputPrompt.length = 7\n'
  )
  # Also where another file includes it.
  (tmp_path / 'my.gin').write_text("include 'part.gin'\n")
  request = request_of(
    arguments.parse(['train', *FLAGS, '--gin_file=my.gin', f'--gin_search_paths={tmp_path}'])
  )
  with config.parsed('train', train, request):
    found = config.record(train, '').settings
  # gin writes modules as the user has named them.
  value = lambda name: next(v for n, v in found.items() if n.endswith(name))
  assert value('BaseModel.dtype') == "'bfloat16'"
  assert value('Devices.device') == "'cpu'"
  assert value('choose.words') == "{'bad': 'no', 'good': 'yes'}"
  assert value('InputPrompt.length') == '7'


def test_decoding_of_an_old_file(tmp_path):
  (tmp_path / 'my.gin').write_text(
    'from __gin__ import dynamic_registration\n'
    'from prompt_jax.cli import infer\n'
    'DECODING = @infer.Decoding()\ninfer.Decoding.temperature = 0.5\n'
  )
  request = request_of(arguments.parse(['infer', f'--gin_file={tmp_path}/my.gin', 'x']))
  assert config.load('infer', infer, request).arguments['decoding'].temperature == 0.5


@pytest.mark.parametrize(
  ('text', 'flags'),
  [
    ('infer.Decoding.topk = 5', []),
    ('infer.Decoding:\n  topk = 5\n', []),
    ('', ['--gin.Decoding.topk=5']),
    ('', ['--gin.Decoding.top_k=5']),
  ],
)
def test_sampling_under_its_old_name(text, flags, tmp_path):
  (tmp_path / 'my.gin').write_text(
    'from __gin__ import dynamic_registration\n'
    f'from prompt_jax.cli import infer\nDECODING = @infer.Decoding()\n{text}\n'
  )
  request = request_of(arguments.parse(['infer', f'--gin_file={tmp_path}/my.gin', *flags, 'x']))
  assert config.load('infer', infer, request).arguments['decoding'].top_k == 5


def test_a_module_under_a_name_of_the_user(tmp_path):
  (tmp_path / 'my.gin').write_text(
    'from __gin__ import dynamic_registration\n'
    'from prompt_jax.runs import predict as mine\nmine.Decoding.temperature = 0.5\n'
  )
  request = request_of(arguments.parse(['infer', f'--gin_file={tmp_path}/my.gin', 'x']))
  assert config.load('infer', infer, request).arguments['decoding'].temperature == 0.5


def test_other_text_stays_as_it_is():
  text = (
    'from prompt_jax.training import optim\nimport theirs.cli.data\nA = "prompt_jax.cli.data"\n'
  )
  assert modernised(text) == text
