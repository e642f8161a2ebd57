"""A run killed at random moments, one told to stop, and one out of disk: all for real."""

import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
from toy_run import toy_train

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.checkpoints.run_state import RunStates

SCRIPT = pathlib.Path(__file__).with_name('toy_run.py')
ROOT = SCRIPT.parent.parent.parent
# Saves every 2 steps keep a save under way nearly all the time.
OPTIONS = {
  'steps': 60,
  'save_every': 2,
  'eval_every': 3,
  'log_every': 1,
  'metric': 'loss',
  'mode': 'min',
}


def start(folder, options, **popen):
  return subprocess.Popen(
    [sys.executable, str(SCRIPT), str(folder), json.dumps(options)],
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **popen,
  )


def wait_for_step(process, folder, step):
  """Waits until the records tell of a step; fails if the process ends before."""
  path = folder / 'metrics.jsonl'
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline:
    if path.is_file() and f'"step": {step},' in path.read_text(errors='replace'):
      return
    if process.poll() is not None:
      raise AssertionError(process.stderr.read())
    time.sleep(0.005)
  raise AssertionError(f'no step {step} within two minutes')


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  folder = tmp_path_factory.mktemp('uninterrupted')
  toy_train(folder, **OPTIONS)
  return folder


def assert_same_prompts(folder, other):
  for name in ('last.safetensors', 'prompt.safetensors', 'initial.safetensors'):
    assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_kill_at_random_moments(uninterrupted, tmp_path):
  rng = random.Random(0)
  done = 0
  for _ in range(4):
    process = start(tmp_path, OPTIONS)
    wait_for_step(process, tmp_path, done + rng.randint(1, 12))
    time.sleep(rng.random() * 0.1)
    process.kill()
    process.wait()
    states = tmp_path / 'state'
    steps = [int(p.name) for p in states.iterdir() if p.name.isdigit()]
    done = max(steps, default=0)
    assert done < OPTIONS['steps']
  assert done > 0
  process = start(tmp_path, OPTIONS)
  out, err = process.communicate(timeout=120)
  assert process.returncode == 0, err
  assert f'Going on after step {done}' in out
  assert_same_prompts(tmp_path, uninterrupted)


def test_sigterm_saves_and_exits_with_143(uninterrupted, tmp_path):
  process = start(tmp_path, {**OPTIONS, 'save_every': 0, 'eval_every': 0})
  wait_for_step(process, tmp_path, 5)
  process.send_signal(signal.SIGTERM)
  out, err = process.communicate(timeout=60)
  assert process.returncode == 143, err
  with RunStates(tmp_path / 'state') as states:
    (step,) = states.steps()
  assert f'SIGTERM: saved step {step}' in out
  assert 5 <= step < OPTIONS['steps']
  assert 'Traceback' not in err
  toy_train(tmp_path, **OPTIONS)
  assert (tmp_path / 'last.safetensors').read_bytes() == (
    uninterrupted / 'last.safetensors'
  ).read_bytes()


def test_full_disk_is_an_error_and_loses_no_state(tmp_path):
  """No file may grow beyond 4 kB, as on a disk that is nearly full."""
  toy_train(tmp_path, **{**OPTIONS, 'steps': 4})
  before = {p: p.read_bytes() for p in (tmp_path / 'state' / '4').rglob('*') if p.is_file()}
  assert before
  (tmp_path / 'metrics.jsonl').unlink()

  def limit():
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

  process = start(tmp_path, OPTIONS, preexec_fn=limit)
  _, err = process.communicate(timeout=120)
  assert process.returncode == 2, err
  assert 'Traceback' not in err
  assert 'UserError: Cannot write' in err
  assert str(tmp_path) in err
  assert {p: p.read_bytes() for p in before} == before
  toy_train(tmp_path, **OPTIONS)
  assert load_prompt(tmp_path / 'last.safetensors').metadata['step'] == OPTIONS['steps']
