"""Two processes over loopback as one program: what a verb writes is what one process writes."""

import json

import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.cli.main import main
from tests.several import Processes, forkserver, free_port, run_command
from tests.shared import mentions

RUN = '--length=4', '--gin.EVAL_EVERY=20'


@pytest.fixture(scope='module')
def server():
  with forkserver('tests.several') as context:
    yield context


@pytest.fixture(scope='module')
def alone(model, reviews, sizes, tmp_path_factory):
  """The output of `train` in one process."""
  out = tmp_path_factory.mktemp('alone')
  flags = ['train', f'--data={reviews}', f'--model={model}', *sizes, *RUN, '--seed=3']
  assert main([*flags, '--steps=20', '--mesh=1x1', f'--output={out}']) == 0
  return out


def two(server, flags, of_first, of_second) -> str:
  """What the first of two processes prints; the second prints nothing."""
  where = [f'--coordinator=127.0.0.1:{free_port()}', '--processes=2']
  commands = [
    [*flags, *where, f'--process={i}', *own] for i, own in enumerate((of_first, of_second))
  ]
  (code, output), (other, silent) = Processes(server, run_command, [[c] for c in commands]).finish()
  assert (code, other) == (0, 0), output + silent
  assert [line for line in silent.splitlines() if '[Gloo]' not in line] == []
  return output


def assert_alike(folder, other, *files):
  """Results and predictions of two folders, whose scores agree to rounding."""
  one, two = (json.loads((f / 'results.json').read_text()) for f in (folder, other))
  assert one.keys() == two.keys()
  assert one['systems'].keys() == two['systems'].keys()
  for name, system in one['systems'].items():
    for a, b in zip(system['scores'], two['systems'][name]['scores'], strict=True):
      assert a == pytest.approx(b, rel=1e-5), name
  for name in one.keys() - {'systems', 'reliability'}:  # the latter are means of confidences
    assert one[name] == two[name], name
  for name in files:
    for a, b in zip(*(_lines(f / name) for f in (folder, other)), strict=True):
      assert a['prediction'] == b['prediction']
      assert a['scores'] == pytest.approx(b['scores'], rel=1e-3)


def assert_same_rows(folder, other):
  rows = [load_prompt(f / 'last.safetensors').params['encoder']['prompt'] for f in (folder, other)]
  np.testing.assert_allclose(*rows, rtol=1e-3, atol=1e-4)


def _lines(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_with_parts_of_a_model_in_each_writes_what_one_with_all_of_it_does(
  server, model, reviews, sizes, alone, tmp_path
):
  """Each process holds half of every matrix."""
  flags = ['train', f'--data={reviews}', f'--model={model}', *sizes, *RUN, '--seed=3']
  flags += ['--steps=20', '--mesh=1x2', '--layout=tensor']
  both, none = tmp_path / 'both', tmp_path / 'none'
  output = two(server, flags, [f'--output={both}'], [f'--output={none}'])
  assert 'accuracy' in output
  assert not none.exists()
  assert_alike(alone, both, 'predictions.jsonl')
  assert_same_rows(alone, both)


def test_prompts_over_two_processes_leave_what_those_of_one_do(
  server, model, reviews, sizes, tmp_path
):
  """A prompt on each device; its file and its scores are read and written by the first alone."""
  flags = ['population', f'--data={reviews}', f'--model={model}', *sizes, *RUN, '--seeds=3,4']
  one, both, none = (tmp_path / name for name in ('one', 'both', 'none'))
  flags += ['--steps=4']
  output = two(server, flags, [f'--output={both}'], [f'--output={none}'])
  assert 'Best prompt' in output
  assert not none.exists()
  assert main([*flags, f'--output={one}']) == 0
  names = 'seed_3', 'seed_4'
  assert_alike(one, both, 'vote.jsonl', *(f'{name}/predictions.jsonl' for name in names))
  for name in names:
    assert_same_rows(one / name, both / name)


def test_two_processes_measure_prompts_as_one_does(server, reviews, alone, tmp_path):
  """Batches of 7 rows do not divide over them; only the first process has the prompts."""
  flags = ['eval', f'--data={reviews}', '--batch_size=7', '--gin.RESAMPLES=20']
  names = 'initial.safetensors', 'last.safetensors'
  prompts, nowhere = (['--prompt_file', *(str(f / n) for n in names)] for f in (alone, tmp_path))
  one, both, none = (tmp_path / name for name in ('one', 'both', 'none'))
  assert main([*flags, *prompts, f'--output={one}']) == 0
  model = f'--model={load_prompt(alone / names[0]).metadata["model"]}'
  output = two(
    server, [*flags, model], [*prompts, f'--output={both}'], [*nowhere, f'--output={none}']
  )
  assert 'majority vote' in output
  assert not none.exists()
  files = 'predictions-1.jsonl', 'predictions-2.jsonl', 'vote.jsonl', 'average.jsonl'
  assert_alike(one, both, *files)


def test_two_processes_with_parts_of_a_model_write_the_answers_of_one(server, alone, tmp_path):
  """Drawn at random, in batches that are filled up; the second process has neither texts nor
  prompt."""
  texts, prompt = tmp_path / 'texts.txt', alone / 'last.safetensors'
  texts.write_text('it was good\nit was bad\nit was\nno\n')
  flags = ['infer', '--decoding=nucleus', '--batch_size=3', '--target_length=8']
  own = [f'--prompt_file={prompt}', f'--input={texts}']
  assert main([*flags, *own, f'--output={tmp_path / "one"}']) == 0
  missing = [f'--prompt_file={tmp_path / "no"}', f'--input={tmp_path / "no"}']
  output = two(
    server,
    [*flags, '--mesh=2x1', '--layout=2d'],
    [*own, f'--output={tmp_path / "both"}'],
    [*missing, f'--output={tmp_path / "none"}'],
  )
  assert '4 answers' in output
  assert not (tmp_path / 'none').exists()
  one, both = (_lines(tmp_path / name) for name in ('one', 'both'))
  assert one == both
  assert len({line['prediction'] for line in one}) > 1


@pytest.mark.parametrize('verb', ['train', 'population', 'eval', 'infer'])
@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (['--coordinator=a:1'], ('coordinator', '--processes', '--process')),
    (
      ['--coordinator=a', '--processes=2', '--process=0'],
      ("'a'", 'HOST:PORT'),
    ),
    (['--coordinator=a:1', '--processes=2', '--process=2'], ('--process', '1')),
  ],
)
def test_impossible_flags(verb, given, message, capsys):
  assert main([verb, *given]) == 2
  assert mentions(capsys.readouterr().err, *message)


@pytest.mark.parametrize(
  'command',
  [['sweep', 'mine.gin'], ['convert', 'model', 'other'], ['pretrain', '--corpus=text.txt']],
)
def test_verbs_of_one_process_refuse_to_be_one_of_several(command, capsys, monkeypatch):
  monkeypatch.setenv('SLURM_STEP_NODELIST', 'localhost')
  monkeypatch.setenv('SLURM_NTASKS', '2')
  assert main(command) == 2
  assert mentions(capsys.readouterr().err, command[0], 'srun', '2')
