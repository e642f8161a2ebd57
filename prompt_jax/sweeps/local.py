"""Runs the commands of a sweep on this machine."""

import dataclasses
import pathlib
import signal
import subprocess
import sys
import time
from types import FrameType

from prompt_jax.sweeps.cells import Job
from prompt_jax.sweeps.state import LOG, State, read, write


def command(output: pathlib.Path, job: Job) -> list[str]:
  """The command line that a user would type."""
  return ['prompt-jax', job.verb, *job.flags, f'--output={output / job.name}']


def run(output: pathlib.Path, job: Job) -> State:
  """Runs a command to its end in a separate process, whose output goes to the log in its folder.

  SIGTERM is passed on to the command, which saves its state and ends. Ctrl-C at a terminal reaches
  the command directly; passing it on too would end the command before it has saved.
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
