"""`prompt-jax sweep`: cells checked and planned before, run, killed, gone on with, gathered."""

import csv
import json
import os
import pathlib
import shlex
import signal
import stat
import subprocess
import sys
import time

import pytest

from prompt_jax.cli.main import main
from tests.shared import RESUMED, mentions


def rows_of(out: pathlib.Path):
  with open(out / 'sweep.csv', newline='') as file:
    return list(csv.DictReader(file))


@pytest.mark.parametrize('together', [[], ['--together']])
def test_the_plan_tells_how_large_weights_in_int8_are(sweep, capsys, together):
  assert main(['sweep', sweep('SEEDS = [0, 1]', WEIGHTS='int8'), '--dry-run', *together]) == 0
  shown = capsys.readouterr().out
  assert 'int8' in shown.partition('prompt-jax')[0]
  assert 'float32' not in shown


def test_a_dry_run_prints_the_plan_and_every_command_and_writes_nothing(
  sweep, model, reviews, tmp_path, capsys
):
  lists = "METHODS = ['input', 'all']\nLEARNING_RATES = [0.3, 1.0]\nSEEDS = [0, 1]"
  assert main(['sweep', sweep(lists), '--dry-run']) == 0
  shown = capsys.readouterr().out
  assert '8 cells' in shown
  assert '3,200' in shown  # 100 rows of 32
  assert '40,288' in shown  # the whole model
  commands = [shlex.split(line) for line in shown.splitlines() if line.startswith('prompt-jax')]
  assert len(commands) == 8
  name = 'model_bytes-method_input-learning_rate_0.3-seed_1'
  assert commands[1] == [
    'prompt-jax', 'train',
    f"--gin.DATA='{reviews}'", '--gin.BATCH_SIZE=8', '--gin.INPUT_LENGTH=16',
    '--gin.TARGET_LENGTH=6', '--gin.STEPS=2', '--gin.EVAL_EVERY=0',
    f'--model={model}', '--prompt=input', '--learning_rate=0.3', '--seed=1',
    f'--output={tmp_path}/out/{name}',
  ]  # fmt: skip
  assert '--train=all' in commands[4]
  assert '--prompt=all' not in commands[4]
  assert not (tmp_path / 'out').exists()


def test_a_killed_sweep_goes_on_and_a_failed_cell_is_told_and_run_again(sweep, tmp_path, capsys):
  """The second cell cannot run, which is found by running it: 8 rows are not 3 equal parts."""
  lists = "LENGTHS = [4]\nGRID = {'MICROBATCHES': [1, 3]}"
  file = sweep(lists, STEPS=600, SAVE_EVERY=20, DROPOUT=0.1)
  out = tmp_path / 'out'
  good, bad = (f'model_bytes-length_4-MICROBATCHES_{n}-seed_0' for n in (1, 3))
  begun = subprocess.Popen(
    [sys.executable, '-m', 'prompt_jax', 'sweep', file],
    start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
  )  # fmt: skip
  state = out / good / 'state'
  deadline = time.monotonic() + 150
  while not any(p.name.isdigit() for p in state.glob('*')):
    assert begun.poll() is None, begun.stdout.read()
    assert time.monotonic() < deadline
    time.sleep(0.02)
  os.killpg(begun.pid, signal.SIGKILL)
  begun.communicate()
  record = json.loads((out / good / 'sweep.json').read_text())
  assert record['what'] == 'running'

  assert main(['sweep', file]) == 2
  _, err = capsys.readouterr()
  assert '1 of 2' in err
  assert mentions(err, bad, '8', '3', 'microbatches')
  assert RESUMED in (out / good / 'log.txt').read_text()
  (row,) = rows_of(out)
  results = json.loads((out / good / 'results.json').read_text())
  scores = results['systems']['tuned prompt']['scores'][0]
  assert float(row['accuracy mean']) == scores['accuracy']
  assert (row['MICROBATCHES'], row['seeds'], row['trained']) == ('1', '1', '128')
  assert f'`{bad}`' in (out / 'sweep.md').read_text()

  before = (out / good / 'sweep.json').read_bytes()
  assert main(['sweep', file]) == 2
  shown, _ = capsys.readouterr()
  assert mentions(shown, '2 cells', '1 done', '1 failed', '1 to run')
  assert f'2 of 2: {bad}' in shown
  assert f'1 of 2: {good}' not in shown
  assert (out / good / 'sweep.json').read_bytes() == before


def test_cells_that_share_a_model_train_together_as_a_job_does(sweep, tmp_path, capsys):
  lists = 'LENGTHS = [4]\nLEARNING_RATES = [0.3, 3.0]\nSEEDS = [0, 1]'
  file, job = sweep(lists), 'together-model_bytes'
  assert main(['sweep', file, '--together', f'--job={job}']) == 0
  command = next(x for x in capsys.readouterr().out.splitlines() if x.startswith('prompt-jax'))
  assert shlex.split(command)[1] == 'population'
  assert '--lengths=4 --learning_rates=0.3,3.0 --seeds=0,1' in command
  assert main(['sweep', file, '--together']) == 0  # which gathers
  assert mentions(capsys.readouterr().out, '4 cells', '1 done', '0 to run')
  prompts = json.loads((tmp_path / 'out' / job / 'results.json').read_text())['prompts']
  for row in rows_of(tmp_path / 'out'):
    rate = float(row['learning_rate'])
    of_rate = [p for p in prompts if p['setting']['LEARNING_RATE'] == rate]
    scores = [p['scores']['accuracy'] for p in of_rate]
    assert float(row['accuracy mean']) == pytest.approx(sum(scores) / 2)
    assert row['seeds'] == '2'


@pytest.mark.parametrize(
  ('lists', 'fixed', 'says'),
  [
    ("METHODS = ['input', 'inptu']", {}, ['model_bytes-method_inptu-seed_0', "'input'"]),
    ('LENGTHS = [4]', {'STESP': 3}, ['model_bytes-length_4-seed_0', "'STESP'", "'STEPS'"]),
    ('LENGTHS = [4, 4]', {}, ['length']),
    ('LENGTHS = 4', {}, ['LENGTHS', '4', 'list', 'None']),
    ('SEEDS = [1, 1]', {}, ['SEEDS is [1, 1]']),
    ("GRID = {'SEED': [1]}", {}, ['SEED']),
    ("GRID = {'STEPS': [1, 2]}", {}, ['STEPS', 'GRID', 'FIXED']),
    ("GRID = {'STEPS_': [1]}", {}, ["'STEPS_'", "'STEPS'"]),
    ("METHODS = ['all']\nLENGTHS = [4]", {}, ['--lengths']),
    ("GRID = {'TASK': ['no_such']}", {'DATA': None}, ["'no_such'"]),
    ("MODELS = ['no_folder']", {}, ['no_folder']),
    ("CLUSTER = 'slrum'", {}, ["'slrum'", "'slurm'"]),
    ("JOB = 'model_bytes-seed_7'", {}, ['model_bytes-seed_7', 'model_bytes-seed_0']),
  ],
)
def test_mistakes_are_found_before_anything_runs(sweep, tmp_path, capsys, lists, fixed, says):
  assert main(['sweep', sweep(lists, **fixed)]) == 2
  _, err = capsys.readouterr()
  for words in says:
    assert words in err
  assert '(--gin.' not in err, 'a sweep has no such flag'
  assert not (tmp_path / 'out').exists()


def test_a_cell_of_other_flags_is_refused(sweep, tmp_path, capsys):
  out = tmp_path / 'out' / 'model_bytes-length_4-seed_0'
  out.mkdir(parents=True)
  record = {'what': 'done', 'flags': ['--gin.STEPS=1']}
  (out / 'sweep.json').write_text(json.dumps(record))
  assert main(['sweep', sweep('LENGTHS = [4]')]) == 2
  assert mentions(capsys.readouterr().err, 'model_bytes-length_4-seed_0', '--gin.STEPS=1')


@pytest.fixture
def slurm(tmp_path, monkeypatch):
  """sbatch and squeue as a cluster has them, but for the cluster: all jobs stay in the queue."""
  bin_ = tmp_path / 'bin'
  bin_.mkdir()
  for name, text in (
    ('sbatch', f'echo "$@" >> {bin_}/submitted; wc -l < {bin_}/submitted'),
    ('squeue', 'echo "$@ pending"'),
  ):
    (bin_ / name).write_text(f'#!/bin/sh\n{text}\n')
    (bin_ / name).chmod(0o755 | stat.S_IXUSR)
  monkeypatch.setenv('PATH', str(bin_), prepend=os.pathsep)
  return bin_


def test_slurm_gets_a_script_for_each_run_once(sweep, slurm, tmp_path, capsys):
  lists = "LENGTHS = [4, 5]\nSLURM = {'partition': 'gpu', 'gres': 'gpu:1'}"
  flags = ['sweep', sweep(lists), '--cluster=slurm']
  assert main([*flags, '--dry-run']) == 0
  assert not (tmp_path / 'out').exists()
  dry = capsys.readouterr().out
  assert main(flags) == 0
  shown = capsys.readouterr().out
  out = tmp_path / 'out'
  name = 'model_bytes-length_5-seed_0'
  script = out / name / 'job.sbatch'
  assert mentions(shown, name, 'job 2', script)
  text = script.read_text()
  assert text in dry
  assert text.splitlines()[:5] == [
    '#!/usr/bin/env bash',
    f'#SBATCH --job-name="{name}"',
    f'#SBATCH --output="{out}/{name}/slurm-%j.log"',
    '#SBATCH --partition="gpu"',
    '#SBATCH --gres="gpu:1"',
  ]
  last = shlex.split(text.splitlines()[-1])
  assert last[:5] == ['exec', sys.executable, '-m', 'prompt_jax', 'sweep']
  assert last[-1] == f'--job={name}'
  subprocess.run(['bash', '-n', str(script)], check=True)
  # What the script runs is a command of this sweep.
  assert main([*last[4:], '--dry-run']) == 0
  assert f'--output={out}/{name}' in capsys.readouterr().out
  # Again: both are in the queue.
  assert main(flags) == 0
  assert mentions(capsys.readouterr().out, name, 'job 2')
  assert len((slurm / 'submitted').read_text().splitlines()) == 2
