"""A signal is acknowledged at once, however long the main thread is away."""

import signal
import subprocess
import sys

# The main thread waits in C for seconds, as it does for a compiler: Python's handlers do not run.
PROGRAM = """
import hashlib
from prompt_jax.training.monitor import Interrupt
with Interrupt() as interrupt:
  print('ready', flush=True)
  hashlib.pbkdf2_hmac('sha256', b'a', b'b', 6_000_000)
  print('after', interrupt.exit_code, flush=True)
"""


def begun():
  process = subprocess.Popen(
    [sys.executable, '-c', PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  assert process.stdout.readline() == 'ready\n'
  return process


def seen(process) -> str:
  """The first line of what is said."""
  return next(line for line in process.stderr if line.strip())


def test_the_first_signal_is_acknowledged_and_noted():
  process = begun()
  process.send_signal(signal.SIGINT)
  assert 'SIGINT' in seen(process)
  assert process.poll() is None  # said before the main thread is back
  out, _ = process.communicate(timeout=60)
  assert out == 'after 130\n'


def test_the_second_one_ends_the_process_at_once():
  process = begun()
  process.send_signal(signal.SIGINT)
  seen(process)
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=60) == 130
  assert process.stdout.read() == ''
