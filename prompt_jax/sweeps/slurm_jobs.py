"""Runs the commands of a sweep as SLURM jobs."""

import dataclasses
import pathlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError
from prompt_jax.sweeps.cells import Job
from prompt_jax.sweeps.state import State, read, write


def hand_over(
  output: pathlib.Path,
  jobs: Sequence[Job],
  states: dict[str, State],
  options: Mapping[str, Any],
  again: Sequence[str],
  dry_run: bool,
  say: Callable[[str], None],
) -> None:
  """Writes batch scripts for jobs that are neither done nor queued; submits them if sbatch exists.

  Args:
    output: folder of the sweep.
    jobs: of the sweep.
    states: by name of a job; those that are submitted change.
    options: of sbatch, see `script`.
    again: the command line of the sweep.
    dry_run: only print the scripts.
    say: prints.
  """
  for job in jobs:
    state = states[job.name]
    if state.what == 'done':
      continue
    if waits(state):
      say(f'{job.name}: in the queue, job {state.batch}')
      continue
    text = script(output, job, options, again)
    if dry_run:
      say(f'# {output / job.name}/job.sbatch\n{text}')
      continue
    states[job.name] = state = submit(output, job, text)
    batch = f'job {state.batch}' if state.what == 'submitted' else 'there is no sbatch here; submit'
    say(f'{job.name}: {batch} {output / job.name}/job.sbatch')


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
        f'SLURM option {name!r} is {value!r}; it contains a character that sbatch cannot quote.'
      )
  lines = [f'#SBATCH --{name}="{value}"' for name, value in given.items()]
  run_it = shlex.join([sys.executable, '-m', 'prompt_jax', *again, f'--job={job.name}'])
  head = '#!/usr/bin/env bash'
  body = ['set -euo pipefail', f'cd {shlex.quote(str(pathlib.Path.cwd()))}', f'exec {run_it}']
  return '\n'.join([head, *lines, *body]) + '\n'


def submit(output: pathlib.Path, job: Job, text: str) -> State:
  """Writes a batch script, and submits it if sbatch exists.

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
  """Whether the job of a command is still in SLURM's queue, pending or running."""
  if (
    state.batch is None or state.what not in ('submitted', 'running') or not shutil.which('squeue')
  ):
    return False
  done = subprocess.run(
    ['squeue', '--noheader', f'--jobs={state.batch}'], capture_output=True, text=True, check=False
  )
  return done.returncode == 0 and bool(done.stdout.strip())
