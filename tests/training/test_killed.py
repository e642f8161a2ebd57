"""A run killed at random moments, one told to stop, and one out of disk: all for real."""

import multiprocessing
import os
import pathlib
import random
import re
import signal
import time

import pytest
import toy_run

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.checkpoints.run_state import RunStates
from prompt_jax.training.records import read_records
from tests.shared import mentions, resumed

# Saves every 2 steps keep a save under way nearly all the time.
OPTIONS = {
  'steps': 40,
  'save_every': 2,
  'eval_every': 3,
  'log_every': 1,
  'metric': 'loss',
  'mode': 'min',
}


@pytest.fixture(scope='module')
def server():
  """Forks each run from a process that has imported everything, which takes most of its time."""
  here = pathlib.Path(__file__).parent
  path = os.pathsep.join([str(here), str(here.parent.parent)])
  before = os.environ.get('PYTHONPATH')
  os.environ['PYTHONPATH'] = path
  context = multiprocessing.get_context('forkserver')
  context.set_forkserver_preload(['toy_run'])
  yield context
  if before is None:
    del os.environ['PYTHONPATH']
  else:
    os.environ['PYTHONPATH'] = before


class Run:
  """A run in a process of its own. Its output goes through a pipe, which no full disk stops."""

  def __init__(self, server, folder, options, **more):
    self._log, child = multiprocessing.Pipe(duplex=False)
    self.process = server.Process(
      target=toy_run.run_process, args=(folder, child, options), kwargs=more
    )
    self.folder = folder
    self.process.start()
    child.close()

  def wait_for_step(self, step, member=''):
    """Waits until the records tell of a step; fails if the process ends before."""
    path = self.folder / member / 'metrics.jsonl'
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
      if path.is_file() and f'"step": {step},' in path.read_text(errors='replace'):
        return
      assert self.process.is_alive(), self.output()
      time.sleep(0.005)
    raise AssertionError(f'no step {step} within two minutes')

  def finish(self):
    """The exit code and what was printed."""
    self.process.join(timeout=120)
    assert self.process.exitcode is not None, 'still running after two minutes'
    return self.process.exitcode, self.output()

  def output(self):
    parts = []
    while part := os.read(self._log.fileno(), 65536):
      parts.append(part)
    return b''.join(parts).decode()


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
  folder = tmp_path_factory.mktemp('uninterrupted')
  toy_run.toy_train(folder, **OPTIONS)
  return folder


def last_state(folder):
  """The step that a run would go on after."""
  return max((int(p.name) for p in (folder / 'state').iterdir() if p.name.isdigit()), default=0)


def assert_same_prompts(folder, other):
  for name in ('last.safetensors', 'prompt.safetensors', 'initial.safetensors'):
    assert (folder / name).read_bytes() == (other / name).read_bytes(), name


def test_kill_at_random_moments(server, uninterrupted, tmp_path):
  rng = random.Random(0)
  folder, done = tmp_path / 'run', 0
  for _ in range(4):
    run = Run(server, folder, OPTIONS)
    run.wait_for_step(done + rng.randint(1, 8))
    time.sleep(rng.random() * 0.1)
    run.process.kill()
    run.process.join()
    done = last_state(folder)
    assert done < OPTIONS['steps']
  assert done > 0
  code, output = Run(server, folder, OPTIONS).finish()
  assert code == 0, output
  assert resumed(done) in output
  assert_same_prompts(folder, uninterrupted)


def test_a_killed_population_goes_on_to_the_same_bytes(server, tmp_path):
  """One of its prompts has stopped by halving, before or after the kill."""
  options = {**OPTIONS, 'rungs': (6,), 'at_once': 2}
  folder, whole, done = tmp_path / 'run', tmp_path / 'whole', 0
  toy_run.toy_train_members(whole, **options)
  for last in (4, 9):
    run = Run(server, folder, options, run=toy_run.toy_train_members)
    run.wait_for_step(last, member='seed_0')
    run.process.kill()
    run.process.join()
    done = last_state(folder)
    assert done < OPTIONS['steps']
  assert done > 0
  code, output = Run(server, folder, options, run=toy_run.toy_train_members).finish()
  assert code == 0, output
  assert resumed(done) in output
  for k in range(3):
    assert_same_prompts(folder / f'seed_{k}', whole / f'seed_{k}')
    steps = [r['step'] for r in read_records(folder / f'seed_{k}' / 'metrics.jsonl')]
    assert steps == [r['step'] for r in read_records(whole / f'seed_{k}' / 'metrics.jsonl')]


def test_a_killed_run_of_packed_rows_goes_on_to_the_same_bytes(server, tmp_path):
  """Within the first epoch, of seven steps, and across the end of one."""
  folder, whole = tmp_path / 'run', tmp_path / 'whole'
  toy_run.toy_train_packed(whole, **OPTIONS)
  for last in (4, 9):
    run = Run(server, folder, OPTIONS, run=toy_run.toy_train_packed)
    run.wait_for_step(last)
    run.process.kill()
    run.process.join()
    assert 0 < last_state(folder) < OPTIONS['steps']
  done = last_state(folder)
  code, output = Run(server, folder, OPTIONS, run=toy_run.toy_train_packed).finish()
  assert code == 0, output
  assert resumed(done) in output
  assert_same_prompts(folder, whole)


def test_sigterm_saves_and_exits_with_143(server, tmp_path):
  folder, whole = tmp_path / 'run', tmp_path / 'whole'
  options = {**OPTIONS, 'save_every': 0, 'eval_every': 0, 'metric': None}
  run = Run(server, folder, {**options, 'steps': 10**6})
  run.wait_for_step(5)
  os.kill(run.process.pid, signal.SIGTERM)
  code, output = run.finish()
  assert code == 143, output
  assert 'Traceback' not in output
  with RunStates(folder / 'state') as states:
    (step,) = states.steps()
  assert mentions(output, 'SIGTERM', f'step {step}')
  # It goes on to what it would have been.
  toy_run.toy_train(folder, **{**options, 'steps': step + 3})
  toy_run.toy_train(whole, **{**options, 'steps': step + 3})
  assert (folder / 'prompt.safetensors').read_bytes() == (whole / 'prompt.safetensors').read_bytes()


def test_full_disk_is_an_error_and_loses_no_state(server, tmp_path):
  """No file may grow beyond 100 bytes, as on a disk that is nearly full."""
  folder = tmp_path / 'run'
  options = {**OPTIONS, 'log_every': 50, 'eval_every': 0, 'metric': None}
  toy_run.toy_train(folder, **{**options, 'steps': 4})
  before = {p: p.read_bytes() for p in (folder / 'state' / '4').rglob('*') if p.is_file()}
  assert before
  (folder / 'metrics.jsonl').unlink()
  code, output = Run(server, folder, options, file_limit=100).finish()
  assert code == 2, output
  assert 'Traceback' not in output
  assert str(folder / 'state') in output
  assert re.search(r'safe[^.]*\b4\b', output)
  assert {p: p.read_bytes() for p in before} == before
  (folder / 'metrics.jsonl').unlink()
  with pytest.warns(UserWarning, match=r'metrics\.jsonl'):
    toy_run.toy_train(folder, **options)
  assert load_prompt(folder / 'prompt.safetensors').metadata['step'] == OPTIONS['steps']
