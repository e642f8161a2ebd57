"""Two processes over loopback: they are one run, stop together, and notice when one is lost."""

import functools
import itertools
import os
import pathlib
import signal
import time

import numpy as np
import pytest
import toy_run

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.checkpoints.run_state import RunStates
from prompt_jax.training.records import read_records
from tests.several import Processes, forkserver, free_port
from tests.shared import mentions, resumed

OPTIONS = {'save_every': 5, 'eval_every': 10, 'log_every': 1, 'metric': 'loss', 'mode': 'min'}
OPTIONS |= {'microbatches': 2}
FOREVER = 10**6


@pytest.fixture(scope='module')
def server():
  with forkserver('toy_run', pathlib.Path(__file__).parent) as context:
    yield context


def two(server, folder, under_srun=False, run=toy_run.toy_train, **options) -> Processes:
  """A toy run of two processes; only the first is given the folder's real name.

  They are told where to meet, or find it out as two tasks of SLURM do.
  """
  coordinator = f'127.0.0.1:{free_port()}'
  nowhere = folder.parent / 'must_not_exist'
  folders = (folder, nowhere)
  return Processes(
    server,
    toy_run.run_one_of_several,
    [
      (
        (None, None, None) if under_srun else (coordinator, 2, i),
        f,
        {**OPTIONS, **options},
        of_task(i, int(coordinator.rpartition(':')[2])) if under_srun else {},
        run,
      )
      for i, f in enumerate(folders)
    ],
  )


def of_task(number, port) -> dict[str, str]:
  """What srun tells a task, for a job whose tasks meet at a port: JAX makes one of the job's id."""
  job = next(n for n in itertools.count(1) if n % 2**12 + 65535 - 2**12 + 1 == port)
  return {
    'SLURM_JOB_ID': str(job),
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_NTASKS': '2',
    'SLURM_PROCID': str(number),
    'SLURM_LOCALID': str(number),
  }


def wait_for_step(running, folder, step):
  path = folder / 'metrics.jsonl'
  deadline = time.monotonic() + 120
  while time.monotonic() < deadline:
    if path.is_file() and f'"step": {step},' in path.read_text(errors='replace'):
      return
    assert all(p.is_alive() for p in running.all), running.finish(1)
    time.sleep(0.01)
  raise AssertionError(f'no step {step} within two minutes')


def state_of(folder) -> int:
  return max((int(p.name) for p in (folder / 'state').iterdir() if p.name.isdigit()), default=0)


def assert_alike(folder, other):
  pairs = [read_records(f / 'metrics.jsonl') for f in (folder, other)]
  assert [(r['step'], r['kind']) for r in pairs[0]] == [(r['step'], r['kind']) for r in pairs[1]]
  for a, b in zip(*pairs, strict=True):
    for name in ('loss', 'grad_norm', 'accuracy'):
      if name in a:
        assert a[name] == pytest.approx(b[name], rel=1e-4), (a['step'], name)
  for name in ('last.safetensors', 'prompt.safetensors'):
    rows = [load_prompt(f / name).params['prompt'] for f in (folder, other)]
    np.testing.assert_allclose(*rows, rtol=1e-4, atol=1e-5)


def test_two_processes_are_one_run_and_one_goes_on_with_it(server, tmp_path):
  alone, both = tmp_path / 'alone', tmp_path / 'both'
  toy_run.toy_train(alone, steps=20, **OPTIONS)
  for code, output in two(server, both, steps=20).finish():
    assert code == 0, output
  assert_alike(both, alone)
  assert not (tmp_path / 'must_not_exist').exists()
  with RunStates(both / 'state') as states:
    assert states.steps()[-1] == 20
  # One process goes on with the state of two, and two with that of one.
  for folder in (alone, both):
    toy_run.toy_train(folder, steps=23, **OPTIONS)
  assert_alike(both, alone)
  (code, output), (other, _) = two(server, both, steps=26).finish()
  assert (code, other) == (0, 0), output
  assert resumed(23) in output
  toy_run.toy_train(alone, steps=26, **OPTIONS)
  assert_alike(both, alone)


# Of three prompts, whose rows both processes share, two go on, of which each process has one.
TOGETHER = {**OPTIONS, 'save_every': 4, 'eval_every': 4, 'rungs': [4]}


def test_prompts_over_two_processes_are_those_of_one_and_either_goes_on(server, tmp_path):
  alone, both = tmp_path / 'alone', tmp_path / 'both'
  by_one = functools.partial(toy_run.toy_train_members, **TOGETHER)
  by_two = functools.partial(two, server, run=toy_run.toy_train_members, **TOGETHER)
  by_one(alone, steps=6)
  assert [code for code, _ in by_two(both, steps=6).finish()] == [0, 0]
  assert not (tmp_path / 'must_not_exist').exists()
  ended = [r.folder.name for r in by_one(both, steps=8) if r.ended is not None]
  (code, output), (other, _) = by_two(alone, steps=8).finish()
  assert (code, other) == (0, 0), output
  assert resumed(6) in output
  assert len(ended) == 1
  for k in range(3):
    assert_alike(both / f'seed_{k}', alone / f'seed_{k}')


@pytest.mark.parametrize(
  ('number', 'signals', 'run', 'member'),
  [
    (1, [signal.SIGTERM], toy_run.toy_train, ''),
    (1, [signal.SIGTERM], toy_run.toy_train_members, 'seed_0'),
    (0, [signal.SIGINT, signal.SIGTERM], toy_run.toy_train, ''),
  ],
)
def test_a_signal_at_one_process_stops_all_at_one_step(
  server, tmp_path, number, signals, run, member
):
  """A second one changes nothing."""
  folder = tmp_path / 'run'
  running = two(server, folder, under_srun=True, run=run, steps=FOREVER, save_every=0)
  wait_for_step(running, folder / member, 5)
  for each in signals:
    os.kill(running.all[number].pid, each)
  (first, output), (second, other) = running.finish(60)
  assert (first, second) == (143, 143), output + other
  assert mentions(output, 'SIGTERM', f'step {state_of(folder)}')
  assert 'saved' not in other
  assert 'Traceback' not in output + other


def assert_failed(code, output):
  """By an error of a transfer (2), or by JAX's own check of the processes, whichever is first."""
  assert code not in (None, 0), output
  assert 'Traceback' not in output


def test_a_lost_process_ends_the_run_and_it_resumes_alone(server, tmp_path):
  folder = tmp_path / 'run'
  running = two(server, folder, steps=FOREVER)
  wait_for_step(running, folder, 12)
  began = time.monotonic()
  running.all[1].kill()
  ended, _ = running.finish(60)
  assert time.monotonic() - began < 60
  assert_failed(*ended)
  done = state_of(folder)
  assert done >= 10
  result = toy_run.toy_train(
    folder, **{**OPTIONS, 'eval_every': 0, 'metric': None, 'steps': done + 2}
  )
  assert result.step == done + 2


def test_losing_the_first_process_ends_the_others(server, tmp_path):
  running = two(server, tmp_path / 'run', steps=FOREVER)
  wait_for_step(running, tmp_path / 'run', 2)
  running.all[0].kill()
  _, ended = running.finish(60)
  assert_failed(*ended)
