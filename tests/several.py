"""Several processes at once over loopback, forked from one that has imported everything."""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import os
import pathlib
import random
import socket
import sys
import time

import jax
import pytest

from prompt_jax.cli.main import main
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes

ROOT = pathlib.Path(__file__).parent.parent


@contextlib.contextmanager
def forkserver(module, *folders):
  """A context of multiprocessing whose processes begin with `module`, found in `folders` too."""
  if jax.config.jax_cpu_collectives_implementation != 'gloo':
    pytest.skip('this JAX has no collectives between processes on CPU (gloo)')
  try:
    free_port()
  except OSError as e:
    pytest.skip(f'no loopback interface: {e}')
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('PYTHONPATH', os.pathsep.join(map(str, [*folders, ROOT])))
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([module])
    # Another test's server was started without these.
    multiprocessing.forkserver._forkserver._stop()
    yield context
    multiprocessing.forkserver._forkserver._stop()


def free_port() -> int:
  """One of those that JAX makes of a SLURM job's number, which are the last 4096."""
  for port in random.sample(range(2**16 - 2**12, 2**16), 100):
    with socket.socket() as s, contextlib.suppress(OSError):
      s.bind(('127.0.0.1', port))
      return port
  raise OSError('no port is free')


class Processes:
  """Several at once, each with a pipe of its own for what it prints."""

  def __init__(self, server, target, arguments):
    self.all, self._logs = [], []
    for of_one in arguments:
      log, child = multiprocessing.Pipe(duplex=False)
      process = server.Process(target=target, args=(child, *of_one))
      process.start()
      child.close()
      self.all.append(process)
      self._logs.append(log)

  def finish(self, timeout=400):
    """(exit code, what was printed) of each; all must end in time."""
    deadline = time.monotonic() + timeout
    for p in self.all:
      p.join(max(0.0, deadline - time.monotonic()))
    alive = [p for p in self.all if p.exitcode is None]
    for p in alive:
      p.kill()
    assert not alive, 'did not end in time:\n' + '\n'.join(map(self._read, self._logs))
    return [(p.exitcode, self._read(log)) for p, log in zip(self.all, self._logs, strict=True)]

  def _read(self, log):
    parts = []
    while part := os.read(log.fileno(), 65536):
      parts.append(part)
    return b''.join(parts).decode()


def print_to(log):
  """Whatever this process prints goes into a pipe from here on."""
  os.dup2(log.fileno(), 1)
  os.dup2(log.fileno(), 2)
  log.close()


def run_command(log, arguments):
  """Target of a process that is `prompt-jax` with these arguments."""
  print_to(log)
  sys.exit(main(arguments))


def meet(log, where, folder, seconds, error=None, after=0):
  """Target of a process that joins others, leaves a file, and is busy without them for a while.

  It ends with an error, or a number to exit with, or is busy on its own for so many seconds after.
  """
  print_to(log)
  processes.HEARTBEAT_TIMEOUT, processes.ERROR_TIMEOUT = 10, 2
  try:
    with processes.distributed(*where):
      (folder / str(where[2])).touch()
      time.sleep(seconds)
      if isinstance(error, int):
        sys.exit(error)
      if error:
        raise UserError(error)
    time.sleep(after)
  except UserError as e:
    print(f'prompt-jax: {e}', file=sys.stderr)
    sys.exit(2)
