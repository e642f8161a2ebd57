"""A signal is acknowledged at once, however long the main thread is away."""

import signal
import subprocess
import sys

import pytest

from prompt_jax.training.monitor import MOMENT

# The main thread waits in C until a line is read, as it does for a compiler: Python's handlers do
# not run, which they would if it waited for anything that a signal interrupts.
PROGRAM = """
import ctypes, os, signal, sys, threading
from prompt_jax.training.monitor import Interrupt
c, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
c.pthread_mutex_init(mutex, None)
c.pthread_mutex_lock(mutex)
def let_go():
  sys.stdin.readline()
  c.pthread_mutex_unlock(mutex)
threading.Thread(target=let_go, daemon=True).start()
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in a shell's `&`
{before}
with Interrupt() as interrupt:
  {first}
  print('ready', flush=True)
  c.pthread_mutex_lock(mutex)
  print('after', interrupt.exit_code, flush=True)
"""
SELF = 'os.kill(os.getpid(), signal.SIGINT)'


def begun(first: str = 'pass', before: str = 'pass'):
  process = subprocess.Popen(
    [sys.executable, '-c', PROGRAM.format(first=first, before=before)], stdin=subprocess.PIPE,
    stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
  )  # fmt: skip
  assert process.stdout.readline() == 'ready\n'
  return process


def seen(process) -> str:
  """The first line of what is said."""
  return next(line for line in process.stderr if line.strip())


def test_the_first_signal_is_acknowledged_and_noted():
  with begun() as process:
    process.send_signal(signal.SIGINT)
    assert 'SIGINT' in seen(process)
    assert process.poll() is None  # said before the main thread is back
    out, _ = process.communicate('go on\n', timeout=60)
  assert out == 'after 130\n'


def test_the_second_one_ends_the_process_at_once():
  with begun() as process:
    process.send_signal(signal.SIGINT)
    seen(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stdout.read() == ''


def test_the_second_one_does_so_where_the_first_was_noted_before_the_main_thread_went_away():
  with begun(SELF) as process:
    assert 'SIGINT' in seen(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert process.stdout.read() == ''


def test_a_handler_of_the_program_is_given_the_second_one():
  """It may do anything, so the process is not ended in its place."""
  with begun(SELF, "signal.signal(signal.SIGINT, lambda *_: print('own'))") as process:
    seen(process)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
      process.wait(timeout=3 * MOMENT)
    out, _ = process.communicate('go on\n', timeout=60)
  assert out == 'own\nafter 130\n'


COMPILING = """
import time
from concurrent.futures import ThreadPoolExecutor
from prompt_jax.cli import main
def interrupted(_):
  ThreadPoolExecutor(1).submit(time.sleep, 100)  # as a compiler, which nothing interrupts
  print('said')
  return main.INTERRUPTED
main.main = interrupted
main.run()
"""


def test_an_interrupted_command_does_not_wait_for_what_compiles():
  done = subprocess.run(
    [sys.executable, '-c', COMPILING], capture_output=True, text=True, timeout=60
  )
  assert (done.returncode, done.stdout) == (130, 'said\n')
