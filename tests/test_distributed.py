"""Processes of one run over loopback: they meet, wait for each other, and none outlives the run."""

import os
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from prompt_jax.cli.main import main
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes
from tests.several import Processes, forkserver, free_port, meet
from tests.shared import mentions

FOREVER = 1000

PROGRAM = """
import sys, time
from prompt_jax.runtime import processes
port, index, body = sys.argv[1:]
processes.JOIN_TIMEOUT = 8
with processes.distributed('127.0.0.1:' + port, 2, int(index)):
  exec(body)
"""


@pytest.fixture(scope='module')
def server():
  with forkserver('tests.several') as context:
    yield context


@pytest.fixture
def port():
  try:
    return str(free_port())
  except OSError as e:
    pytest.skip(f'no loopback interface: {e}')


def joined(server, folder, *options) -> Processes:
  """Processes that have joined, each with its options of `meet`."""
  where = f'127.0.0.1:{free_port()}'
  running = Processes(
    server, meet, [((where, len(options), i), folder, *o) for i, o in enumerate(options)]
  )
  deadline = time.monotonic() + 120
  while len(list(folder.iterdir())) < len(options):
    assert all(p.is_alive() for p in running.all), running.finish(1)
    assert time.monotonic() < deadline, running.finish(1)
    time.sleep(0.01)
  return running


def assert_failed(ended):
  code, output = ended
  assert code not in (None, 0), output


@pytest.mark.parametrize('lost', [0, 1])
def test_a_killed_process_ends_all_others(server, tmp_path, lost):
  running = joined(server, tmp_path, *[(FOREVER,)] * 3)
  running.all[lost].kill()
  for ended in running.finish(60):
    assert_failed(ended)


@pytest.mark.parametrize('frozen', [0, 1])
def test_a_process_that_is_frozen_for_long_ends_the_other_and_itself(server, tmp_path, frozen):
  running = joined(server, tmp_path, (FOREVER,), (FOREVER,))
  os.kill(running.all[frozen].pid, signal.SIGSTOP)
  try:
    running.all[1 - frozen].join(60)
    assert running.all[1 - frozen].exitcode not in (None, 0)
  finally:
    os.kill(running.all[frozen].pid, signal.SIGCONT)
  for ended in running.finish(60):
    assert_failed(ended)


@pytest.mark.parametrize('frozen', [0, 1])
def test_a_process_that_is_frozen_for_a_moment_ends_nothing(server, tmp_path, frozen):
  running = joined(server, tmp_path, (4,), (4,))
  os.kill(running.all[frozen].pid, signal.SIGSTOP)
  time.sleep(1)
  os.kill(running.all[frozen].pid, signal.SIGCONT)
  assert running.finish(60) == [(0, ''), (0, '')]


@pytest.mark.parametrize('last', [0, 1])
def test_a_process_that_is_done_waits_for_the_other(server, tmp_path, last):
  """Longer than one that ends with an error."""
  running = joined(server, tmp_path, *[(4,) if i == last else (0,) for i in (0, 1)])
  assert running.finish(60) == [(0, ''), (0, '')]


def test_a_process_that_stops_after_a_signal_waits_while_the_other_saves(server, tmp_path):
  running = joined(server, tmp_path, (4, 143), (0, 143))
  assert running.finish(60) == [(143, ''), (143, '')]


def test_after_the_run_a_process_may_go_on_alone(server, tmp_path):
  running = joined(server, tmp_path, (0, None, 4), (0,))
  assert running.finish(60) == [(0, ''), (0, '')]


def test_a_process_that_is_done_ends_too_when_the_other_is_killed(server, tmp_path):
  running = joined(server, tmp_path, (FOREVER,), (0,))
  time.sleep(1)
  running.all[0].kill()
  assert_failed(running.finish(60)[1])


@pytest.mark.parametrize('failed', [0, 1])
def test_an_error_in_one_process_ends_the_other(server, tmp_path, failed):
  options = [(0, 'This file is bad.') if i == failed else (FOREVER,) for i in (0, 1)]
  ended = joined(server, tmp_path, *options).finish(60)
  code, output = ended[failed]
  assert code == 2, output
  assert output.splitlines()[0] == 'prompt-jax: This file is bad.'
  assert_failed(ended[1 - failed])


def test_an_error_in_all_processes_is_printed_by_each(server, tmp_path):
  ended = joined(server, tmp_path, (0, 'Bad.'), (1, 'Bad.')).finish(60)
  assert ended == [(2, 'prompt-jax: Bad.\n')] * 2


def test_one_task_of_slurm_is_one_process(monkeypatch):
  monkeypatch.setenv('SLURM_STEP_NODELIST', 'host')
  monkeypatch.setenv('SLURM_NTASKS', '1')
  with processes.distributed(None, None, None):
    processes.refuse_multiple('convert')
  monkeypatch.setenv('SLURM_NTASKS', '2')
  with pytest.raises(UserError, match=r'convert.*srun.* 2'):
    processes.refuse_multiple('convert')


def started(port, index, body):
  command = [sys.executable, '-c', PROGRAM, port, index, body]
  return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def listen_error(capsys, port) -> str:
  """What process 0 of a run says that cannot listen there; JAX is not asked."""
  argv = ['eval', f'--coordinator=127.0.0.1:{port}', '--processes=2', '--process=0']
  assert main(argv) == 2
  return capsys.readouterr().err


@pytest.mark.parametrize('options', [[], [socket.SO_REUSEADDR, socket.SO_REUSEPORT]])
def test_a_port_that_is_taken(port, options, capsys):
  """Another run's process 0 would share it."""
  with socket.socket() as taken:
    for option in options:
      taken.setsockopt(socket.SOL_SOCKET, option, 1)
    taken.bind(('', int(port)))
    taken.listen()
    said = listen_error(capsys, port)
  assert mentions(said, f'127.0.0.1:{port}', 'in use', '--coordinator')


@pytest.mark.parametrize('none', [0, 65536])
def test_a_port_that_does_not_exist(none, capsys):
  assert mentions(listen_error(capsys, none), f'127.0.0.1:{none}', '1 to 65535', '--coordinator')


@pytest.mark.parametrize('index', ['0', '1'])
def test_a_process_that_waits_in_vain_says_so_in_a_line(port, index):
  process = started(port, index, 'pass')
  _, output = process.communicate(timeout=120)
  assert process.returncode == 2, output
  (line,) = [x for x in output.splitlines() if x.startswith('prompt-jax: ')]
  for fact in (f'Process {index} of 2', '8 seconds', f'127.0.0.1:{port}'):
    assert fact in line
  assert 'Traceback' not in output
  assert 'Check failure' not in output


def test_an_interrupted_process_ends_and_so_does_the_other(port):
  other = started(port, '1', 'time.sleep(100)')
  process = started(port, '0', 'raise KeyboardInterrupt')
  _, output = process.communicate(timeout=120)
  other.communicate(timeout=120)
  assert process.returncode == 130, output
  assert other.returncode not in (None, 0)


@pytest.mark.parametrize(
  ('error', 'lost'),
  [
    (jax.errors.JaxRuntimeError('UNAVAILABLE: Failed to send RPC'), True),
    (ValueError('Gloo all-reduce failed: Connection closed by peer'), True),
    (ValueError('the connection to the data base is unavailable'), False),
    (jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory'), False),
    (UserError('no connection (gloo)'), False),
  ],
)
def test_only_a_broken_transport_means_a_lost_process(error, lost):
  assert (processes._lost_process(error) is not None) == lost


def test_values_that_are_too_large_to_send_are_refused(monkeypatch):
  monkeypatch.setattr(processes, 'MAX_BYTES', 1000)
  assert processes._unpickled(processes._pickled(lambda: b'x' * 900)) == b'x' * 900
  with pytest.raises(UserError, match=r'1[0-9]{3} bytes.* 1000'):
    processes._unpickled(processes._pickled(lambda: b'x' * 1100))
