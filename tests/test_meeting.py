"""Processes that do not all come, or of which one is interrupted: real ones, over loopback."""

import subprocess
import sys

import jax
import pytest

from prompt_jax.errors import UserError
from prompt_jax.runtime import processes
from tests.several import free_port
from tests.shared import facts, mentions

PROGRAM = """
import sys, time
from prompt_jax.runtime import processes
port, number, body = sys.argv[1:]
processes.JOINING = 8
try:
  with processes.distributed('127.0.0.1:' + port, 2, int(number)):
    exec(body)
except KeyboardInterrupt:
  sys.exit('left in order')
"""


@pytest.fixture
def port():
  try:
    return str(free_port())
  except OSError as e:
    pytest.skip(f'no loopback interface: {e}')


def started(port, number, body):
  command = [sys.executable, '-c', PROGRAM, port, number, body]
  return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize('number', ['0', '1'])
def test_whoever_waits_in_vain_says_so_in_a_line(port, number):
  process = started(port, number, 'pass')
  _, said = process.communicate(timeout=120)
  assert process.returncode == 2, said
  (line,) = [x for x in said.splitlines() if x.startswith('prompt-jax: ')]
  assert mentions(line, f'{number} of 2', '8 seconds', f'127.0.0.1:{port}')
  assert 'Traceback' not in said
  assert 'Check failure' not in said


def test_an_interrupted_process_ends_in_a_line_and_the_other_is_told(port):
  other = started(port, '1', 'time.sleep(100)')
  process = started(port, '0', 'raise KeyboardInterrupt')
  _, said = process.communicate(timeout=120)
  _, told = other.communicate(timeout=120)
  assert process.returncode == 130, said
  assert said.splitlines()[-1] == 'prompt-jax: interrupted'
  assert other.returncode == 2, told
  assert 'Another process of this run was lost' in told.splitlines()[-1]


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
def test_only_a_broken_transport_is_told_as_a_lost_process(error, lost):
  assert (processes._told_of_loss(error) is not None) == lost


def test_more_than_processes_can_tell_each_other_is_refused(monkeypatch):
  monkeypatch.setattr(processes, 'MOST', 1000)
  assert processes._value(processes._pickled(lambda: b'x' * 900)) == b'x' * 900
  with pytest.raises(UserError, match=facts('1000', '1')):
    processes._value(processes._pickled(lambda: b'x' * 1100))
