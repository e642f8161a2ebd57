"""Processes that do not compute together, and notice all the same when one of them is lost."""

import os
import signal
import socket
import threading
import time

import pytest

from prompt_jax.errors import UserError
from prompt_jax.runtime import processes, relay, watch
from prompt_jax.runtime.watch import Watch
from tests.several import Processes, forkserver, free_port, meet
from tests.shared import facts

LOST = 'prompt-jax: Another process of this run was lost ('
FOREVER = 1000


@pytest.fixture(scope='module')
def server():
  with forkserver('tests.several') as context:
    yield context


def joined(server, folder, *options, port=None) -> Processes:
  """Processes that have joined, each with its options of `meet`."""
  where = f'127.0.0.1:{port or free_port()}'
  running = Processes(
    server, meet, [((where, len(options), i), folder, *o) for i, o in enumerate(options)]
  )
  deadline = time.monotonic() + 120
  while len(list(folder.iterdir())) < len(options):
    assert all(p.is_alive() for p in running.all), running.finish(1)
    assert time.monotonic() < deadline, running.finish(1)
    time.sleep(0.01)
  return running


def assert_told(ended, why):
  code, output = ended
  assert code == 2, output
  (line,) = output.splitlines()
  assert line.startswith(LOST), output
  assert why in line


@pytest.mark.parametrize('lost', [0, 1, 2])
def test_any_one_that_is_killed_ends_the_others(server, tmp_path, lost):
  running = joined(server, tmp_path, *[(FOREVER,)] * 3)
  began = time.monotonic()
  running.all[lost].kill()
  ended = running.finish(30)
  assert time.monotonic() - began < 15
  for i in {0, 1, 2} - {lost}:
    assert_told(ended[i], '127.0.0.1: the connection ended')


@pytest.mark.parametrize('frozen', [0, 1])
def test_one_that_is_frozen_for_long_ends_the_other_and_itself(server, tmp_path, frozen):
  running = joined(server, tmp_path, (FOREVER,), (FOREVER,))
  os.kill(running.all[frozen].pid, signal.SIGSTOP)
  try:
    running.all[1 - frozen].join(30)
    assert running.all[1 - frozen].exitcode == 2
  finally:
    os.kill(running.all[frozen].pid, signal.SIGCONT)
  ended = running.finish(30)
  assert_told(ended[1 - frozen], '127.0.0.1: no sign of life')
  assert_told(ended[frozen], 'the connection ended')


@pytest.mark.parametrize('frozen', [[0], [1], [0, 1]])
def test_one_that_is_frozen_for_a_moment_does_not(server, tmp_path, frozen):
  running = joined(server, tmp_path, (6,), (6,))
  for i in frozen:
    os.kill(running.all[i].pid, signal.SIGSTOP)
  # All of them may be stopped for longer, as a job that is suspended.
  time.sleep(1 if len(frozen) == 1 else 4)
  for i in frozen:
    os.kill(running.all[i].pid, signal.SIGCONT)
  assert running.finish(60) == [(0, ''), (0, '')]


@pytest.mark.parametrize('last', [0, 1])
def test_one_that_is_through_waits_for_the_other(server, tmp_path, last):
  """Longer than for one that came to an error."""
  running = joined(server, tmp_path, *[(5,) if i == last else (0,) for i in (0, 1)])
  assert running.finish(60) == [(0, ''), (0, '')]


def test_one_that_stops_after_a_signal_waits_while_the_other_saves(server, tmp_path):
  running = joined(server, tmp_path, (5, 143), (0, 143))
  assert running.finish(60) == [(143, ''), (143, '')]


def test_after_the_run_nobody_is_missed(server, tmp_path):
  running = joined(server, tmp_path, (0, None, 4), (0,))
  assert running.finish(60) == [(0, ''), (0, '')]


def test_one_that_is_alone_has_time_to_finish_a_state(server, tmp_path):
  running = joined(server, tmp_path, (FOREVER,), (FOREVER,))
  running.all[0].kill()
  running.all[1].join(1.5)
  assert running.all[1].is_alive()
  assert_told(running.finish(30)[1], 'the connection ended')


def test_one_task_of_slurm_is_one_process(monkeypatch):
  monkeypatch.setenv('SLURM_STEP_NODELIST', 'host')
  monkeypatch.setenv('SLURM_NTASKS', '1')
  with processes.distributed(None, None, None):
    processes.refuse_multiple('convert')
  monkeypatch.setenv('SLURM_NTASKS', '2')
  with pytest.raises(UserError, match=facts('convert', 'srun', '2')):
    processes.refuse_multiple('convert')


def test_one_that_is_through_is_told_of_a_loss_too(server, tmp_path):
  running = joined(server, tmp_path, (FOREVER,), (0,))
  time.sleep(1)
  running.all[0].kill()
  assert_told(running.finish(30)[1], 'the connection ended')


@pytest.mark.parametrize('failed', [0, 1])
def test_an_error_in_one_process_is_its_last_word(server, tmp_path, failed):
  """The other one is told within seconds that it is alone."""
  options = [(0, 'This file is bad.') if i == failed else (FOREVER,) for i in (0, 1)]
  ended = joined(server, tmp_path, *options).finish(30)
  assert ended[failed] == (2, 'prompt-jax: This file is bad.\n')
  assert_told(ended[1 - failed], 'the connection ended')


def test_an_error_in_all_is_told_by_all(server, tmp_path):
  ended = joined(server, tmp_path, (0, 'Bad.'), (1, 'Bad.')).finish(30)
  assert ended == [(2, 'prompt-jax: Bad.\n')] * 2


def test_a_stranger_at_the_port_is_no_loss(server, tmp_path):
  port = free_port()
  running = joined(server, tmp_path, (3,), (3,), port=port)
  for said in (b'', b'GET / HTTP/1.1\r\n\r\n', relay.GREETING[:5]):
    with socket.create_connection(('127.0.0.1', port)) as stranger:
      stranger.sendall(said)
  assert running.finish(60) == [(0, ''), (0, '')]


def test_relays_pass_on_what_jax_says_and_a_connection_that_it_closes_is_no_loss(monkeypatch):
  port = free_port()
  told = []
  monkeypatch.setattr(watch, 'SAVING', 0.1)
  monkeypatch.setattr(Watch, 'end', lambda *_: None)
  first, other = (Watch(f'127.0.0.1:{port}', i == 0, told.append) for i in (0, 1))
  with socket.socket(socket.AF_UNIX) as service, socket.socket(socket.AF_UNIX) as client:
    service.bind(first.address.removeprefix('unix:'))
    service.listen()
    client.connect(other.address.removeprefix('unix:'))
    there, _ = service.accept()
    for each in (client, there):
      each.settimeout(30)
    for each in (first, other):
      for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(each._relay.pid, number)
    with there:
      much = os.urandom(10**6)
      for near, far in ((client, there), (there, client)):
        sender = threading.Thread(target=near.sendall, args=(much,))
        sender.start()
        found = b''
        while len(found) < len(much):
          found += far.recv(2**16)
        sender.join()
        assert found == much
      client.close()
      assert there.recv(1) == b''
  time.sleep(2)  # longer than the relays wait for a sign that the process is gone
  assert told == []
  for each in (first, other):
    each.connected()
    assert not os.path.exists(each.address.removeprefix('unix:'))
    each.close()


def test_a_port_that_is_taken():
  with socket.socket() as taken:
    taken.bind(('', free_port()))
    taken.listen()
    where = f'127.0.0.1:{taken.getsockname()[1]}'
    with pytest.raises(UserError, match=facts('port', 'coordinator')):
      Watch(where, first=True, words=str)
