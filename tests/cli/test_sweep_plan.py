"""What `prompt-jax sweep` plans before it starts: what fits, how long it takes, what it refuses."""

import importlib.util
import json
import re
import shlex
import sys

import pytest

from prompt_jax.cli.main import main
from prompt_jax.configuration.run_files import names
from prompt_jax.sweeps import planning
from tests.shared import mentions

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed'
)
HUGE = 10**8  # rows of a batch that no machine has memory for
GIB = 2**30


@pytest.fixture
def planned(sweep):
  """`sweep` with a plan, which it otherwise leaves out."""
  return lambda lists, **more: sweep(f'{lists}\nPLAN = True', **more)


@pytest.fixture
def compiler(monkeypatch):
  """A compiler that is quick: each row takes a GiB of 16, and a second. Notes what it is asked."""
  asked = []

  def compiled(jobs, topology, slices, command):
    for job in jobs:
      asked.append((job.name, topology, slices))
      flag = next(f for f in job.flags if 'BATCH_SIZE' in f)
      rows = int(flag.rpartition('=')[2])
      fits = rows <= 16
      yield {
        'device': 'abacus', 'step': f'{rows} x 16 + 6', 'how': 'float32', 'fits': fits,
        'needed': rows * GIB, 'limit': 16 * GIB, 'seconds': float(rows) if fits else None,
      }  # fmt: skip

  monkeypatch.setattr(planning, '_compiled', compiled)
  return asked


def commands(shown: str) -> list[str]:
  return [line for line in shown.splitlines() if line.startswith('prompt-jax train')]


def test_each_program_is_compiled_once_and_what_is_done_is_not(planned, compiler, tmp_path, capsys):
  """Rates and seeds are numbers in one program; lengths, methods and dropout are others."""
  lists = "METHODS = ['input', 'all']\nLEARNING_RATES = [0.3, 1.0]\nSEEDS = [0, 1]"
  file = planned(lists, STEPS=7200)
  assert main(['sweep', file, '--dry-run']) == 0
  shown = capsys.readouterr().out
  cell = 'model_bytes-method_{}-learning_rate_{}-seed_{}'.format
  assert compiler == [(cell(m, 0.3, 0), 'here', 1) for m in ('input', 'all')]
  # 8 rows, 8 seconds a step, 7200 steps: 16 hours each of 8 runs.
  assert '8 of 16' in shown
  assert '>= 16.0 h' in shown
  assert '128.0 h' in shown

  compiler.clear()
  for seed in (0, 1):
    for rate in (0.3, 1.0):
      folder = tmp_path / 'out' / cell('all', rate, seed)
      folder.mkdir(parents=True)
      line = next(line for line in commands(shown) if line.endswith(str(folder)))
      flags = shlex.split(line)[2:-1]
      (folder / 'sweep.json').write_text(json.dumps({'what': 'done', 'flags': flags}))
  assert main(['sweep', file, '--dry-run']) == 0
  assert [name for name, *_ in compiler] == [cell('input', 0.3, 0)]
  assert '64.0 h' in capsys.readouterr().out


def test_every_method_may_be_swept(planned, compiler, capsys):
  methods = names('prompts')
  assert main(['sweep', planned(f'METHODS = {methods!r}'), '--dry-run']) == 0
  assert [name.partition('method_')[2].removesuffix('-seed_0') for name, *_ in compiler] == methods
  assert len(commands(capsys.readouterr().out)) == len(methods)


@pytest.mark.parametrize(
  'grid',
  [
    {'PROMPT_LENGTH': [4, 5]}, {'BATCH_SIZE': [8, 16]}, {'DROPOUT': [0.0, 0.1]},
    {'WEIGHTS': [None, 'int8']}, {'MICROBATCHES': [1, 2]}, {'INPUT_LENGTH': [16, 32]},
    {'MESH': [None, (4, 1)]}, {'adafactor.factored': [False, True]}, {'DTYPE': [None, 'bfloat16']},
    {'TRAINABLE': [['prompt/.*'], ['.*']]},
  ],
)  # fmt: skip
def test_whatever_changes_the_program_is_compiled(planned, compiler, grid):
  assert main(['sweep', planned(f'GRID = {grid!r}', without=grid), '--dry-run']) == 0
  assert len(compiler) == 2


def test_runs_that_do_not_fit_are_refused_left_out_or_run(planned, compiler, tmp_path, capsys):
  file = planned('LENGTHS = [4]\nSEEDS = [0, 1]', BATCH_SIZE=32)
  assert main(['sweep', file]) == 2
  shown, err = capsys.readouterr()
  assert 'NO' in shown
  assert '2 of 2' in err
  assert mentions(err, 'model_bytes-length_4-seed_1', '32 of 16 GiB')
  for words in ('MICROBATCHES', 'int8', 'prompt-jax plan', 'search', 'skip'):
    assert words in err
  assert not (tmp_path / 'out').exists()
  assert main(['sweep', file, '--too_large=run', '--dry-run']) == 0
  assert len(commands(capsys.readouterr().out)) == 2
  assert main(['sweep', file, '--too_large=skip', '--dry-run']) == 0
  shown = capsys.readouterr().out
  assert '2 of 2' in shown
  assert not commands(shown)


def test_a_model_that_is_left_out_is_the_embedded_one(planned, compiler, capsys):
  sizes = []
  for value in ('None', '"embedded"'):
    assert main(['sweep', planned(f'GRID = {{"MODEL": [{value}]}}'), '--dry-run']) == 0
    sizes.append(re.findall(r'\d+,\d{3},\d{3}', capsys.readouterr().out))  # of model and prompt
  assert len(sizes[0]) == 2
  assert sizes[0] == sizes[1]


def test_the_plan_is_of_where_the_runs_go(planned, compiler, monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: name)
  xpk = "XPK = {'cluster': 'c', 'tpu-type': 'v5litepod-16', 'num-slices': 2}"
  file = planned(f'LENGTHS = [4]\n{xpk}')
  assert main(['sweep', file, '--cluster=xpk', '--dry-run']) == 0
  assert main(['sweep', file, '--cluster=slurm', '--dry-run']) == 0
  assert mentions(capsys.readouterr().out, 'topology', 'v5e-16')
  assert main(['sweep', file, '--topology=v6e-8', '--dry-run']) == 0
  assert mentions(capsys.readouterr().out, 'estimate', 'TPU')
  assert main(['sweep', file, '--gin.PLAN=False', '--dry-run']) == 0
  assert main(['sweep', file, '--cluster=xpk', '--topology=v6e-8', '--dry-run']) == 0
  # Slices of XPK are of workloads, not of runs elsewhere.
  assert [place for _, *place in compiler] == [['v5e-16', 2], ['v6e-8', 1], ['v6e-8', 2]]


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--topology=v5e-5'], ("'v5e-5'",)),
    (['--topology=v5e-16'], ("'.[tpu]'", 'plan')),
    (['--too_large=drop'], ("'drop'",)),
  ],
)
def test_mistakes_of_a_plan(planned, compiler, monkeypatch, capsys, flags, says):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert main(['sweep', planned('LENGTHS = [4]'), *flags]) == 2
  assert mentions(capsys.readouterr().err, *says)


def test_a_process_that_dies_is_told(planned, monkeypatch, tmp_path, capsys):
  program = tmp_path / 'python'
  program.write_text('#!/bin/sh\necho no room >&2\nexit 9\n')
  program.chmod(0o755)
  file = planned('LENGTHS = [4]')
  monkeypatch.setattr(sys, 'executable', str(program))
  assert main(['sweep', file]) == 2
  err = capsys.readouterr().err
  assert 'model_bytes-length_4-seed_0' in err
  assert 'code 9: no room' in err


@pytest.mark.parametrize('together', [[], ['--together']])
def test_this_machine_compiles_what_will_run(planned, tmp_path, capsys, together):
  """A batch that no machine holds, beside one that any does."""
  lists = f"LENGTHS = [4]\nSEEDS = [0, 1]\nGRID = {{'BATCH_SIZE': [8, {HUGE}]}}"
  file = planned(lists, without=['BATCH_SIZE'])
  assert main(['sweep', file, *together]) == 2
  shown, err = capsys.readouterr()
  assert mentions(shown, 'training', 'cpu')
  assert f'{HUGE}' in err
  assert 'BATCH_SIZE_8' not in err
  assert not (tmp_path / 'out').exists()


def test_what_cannot_be_compiled_is_an_error_of_its_cell(planned, capsys):
  assert main(['sweep', planned("GRID = {'MICROBATCHES': [1, 3]}")]) == 2
  err = capsys.readouterr().err
  assert mentions(err, 'model_bytes-MICROBATCHES_3-seed_0', '8')


@needs_libtpu
def test_a_slice_is_planned_by_its_own_compiler(planned, capsys):
  file = planned("GRID = {'WEIGHTS': [None, 'int8']}\nTOPOLOGY = 'v5e-16'", BATCH_SIZE=16)
  assert main(['sweep', file, '--dry-run']) == 0
  shown = ' '.join(capsys.readouterr().out.replace('│', ' ').split())
  assert mentions(shown, 'training', 'v5e-16')
  assert 'of 15.8' in shown
  # Several hosts: all devices, as the run itself takes them; and bfloat16, as on any TPU.
  assert 'bfloat16, 16x1 data' in shown
  assert 'int8, 16x1 data' in shown


@needs_libtpu
def test_what_a_slice_has_no_memory_for_is_refused(planned, capsys):
  file = planned("TOPOLOGY = 'v5e-1'\nLENGTHS = [4]", BATCH_SIZE=2**20, INPUT_LENGTH=512)
  assert main(['sweep', file, '--dry-run']) == 2
  err = capsys.readouterr().err
  # Terabytes, and not what their number would be in another unit.
  assert float(re.search(r'([\d.,]+) of 15.8 GiB', err).group(1).replace(',', '')) > 2000
  assert mentions(err, 'search', 'v5e-1')
