"""Commands of a sweep run here, or handed to SLURM."""

import dataclasses
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.cli.sweep_cells import Job
from prompt_jax.cli.sweep_state import LOG, State, read, write
from prompt_jax.errors import UserError


def command(output: pathlib.Path, job: Job) -> list[str]:
  """What a user would type."""
  return ['prompt-jax', job.verb, *job.flags, f'--output={output / job.name}']


def run(output: pathlib.Path, job: Job) -> State:
  """Runs a command to its end in a process of its own, whose words go into its folder's log.

  SIGTERM is passed on to the command, which saves where it stands and ends; Ctrl-C at a terminal
  reaches it by itself, and a second signal would end it before it has saved.
  """
  before = read(output, job)
  begun = dataclasses.replace(before, what='running', flags=job.flags)
  write(output, job, begun)
  log = output / job.name / LOG
  start = time.monotonic()
  with open(log, 'ab') as file:
    process = subprocess.Popen(
      [sys.executable, '-m', 'prompt_jax', *command(output, job)[1:]], stdout=file, stderr=file
    )

    def pass_on(number: int, _: FrameType | None) -> None:
      process.terminate()
      raise KeyboardInterrupt

    handler = signal.signal(signal.SIGTERM, pass_on)
    try:
      code = process.wait()
    except KeyboardInterrupt:
      process.wait()
      raise
    finally:
      signal.signal(signal.SIGTERM, handler)
  ended = dataclasses.replace(
    begun,
    what='done' if code == 0 else 'failed',
    seconds=before.seconds + time.monotonic() - start,
    resumed=before.what != 'new',
    last_line='' if code == 0 else _last_line(log, code),
  )
  write(output, job, ended)
  return ended


def _last_line(log: pathlib.Path, code: int) -> str:
  lines = log.read_text(encoding='utf-8', errors='replace').split('\n')
  said = next((line.strip() for line in reversed(lines) if line.strip()), 'it printed nothing')
  return said if code == 2 else f'exit code {code}: {said}'


def script(output: pathlib.Path, job: Job, options: Mapping[str, Any], again: Sequence[str]) -> str:
  """A batch script for SLURM that runs one command of the sweep.

  Args:
    output: folder of the sweep.
    job: the command.
    options: of sbatch, without dashes: {"partition": "gpu"}.
    again: the command line of the sweep, to which the command's name is added.
  """
  given = {
    'job-name': job.name,
    'output': f'{output.absolute()}/{job.name}/slurm-%j.log',
    **options,
  }
  for name, value in given.items():
    if any(c in f'{name}{value}' for c in '\n"\\'):
      raise UserError(
        f'SLURM option {name!r} is {value!r}; it holds a character that sbatch splits at.'
      )
  lines = [f'#SBATCH --{name}="{value}"' for name, value in given.items()]
  run_it = shlex.join([sys.executable, '-m', 'prompt_jax', *again, f'--job={job.name}'])
  head = '#!/usr/bin/env bash'
  body = ['set -euo pipefail', f'cd {shlex.quote(str(pathlib.Path.cwd()))}', f'exec {run_it}']
  return '\n'.join([head, *lines, *body]) + '\n'


def submit(output: pathlib.Path, job: Job, text: str) -> State:
  """Writes a batch script, and hands it to sbatch where there is one.

  Raises:
    UserError: sbatch refuses it.
  """
  path = output / job.name / 'job.sbatch'
  write_atomically(path, text.encode())
  before = read(output, job)
  if shutil.which('sbatch') is None:
    return before
  done = subprocess.run(
    ['sbatch', '--parsable', str(path)], capture_output=True, text=True, check=False
  )
  if done.returncode:
    raise UserError(f'sbatch refuses {path}: {done.stderr.strip() or done.stdout.strip()}')
  batch = done.stdout.strip().split(';')[0]
  state = dataclasses.replace(before, what='submitted', flags=job.flags, batch=batch)
  write(output, job, state)
  return state


def waits(state: State) -> bool:
  """Whether SLURM still holds the job of a command, waiting or running."""
  if (
    state.batch is None or state.what not in ('submitted', 'running') or not shutil.which('squeue')
  ):
    return False
  done = subprocess.run(
    ['squeue', '--noheader', f'--jobs={state.batch}'], capture_output=True, text=True, check=False
  )
  return done.returncode == 0 and bool(done.stdout.strip())
