"""`prompt-jax serve --ray` on a cluster of two nodes; a replica is killed (kill -9) under load.

python scripts/try_ray.py [--clients 8] [--seconds 20] [--prompts 8]

Both nodes are on this machine. Every answer is compared with that of its prompt, computed before. A
request may fail if it was on its way when the replica was killed, and no other.
"""

import argparse
import collections
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

from bench_serve import TEXTS, expected_of, write_prompts

REPLICA = b'ray::ServeReplica:prompt_jax'


class Request(NamedTuple):
  """One that came back; times of `time.monotonic`."""

  began: float
  ended: float
  status: int
  right: bool
  body: bytes


def replicas() -> list[int]:
  """The pids of replicas that are below this process."""
  found = []
  for folder in pathlib.Path('/proc').glob('[0-9]*'):
    try:
      if (folder / 'cmdline').read_bytes().startswith(REPLICA) and _is_ours(int(folder.name)):
        found.append(int(folder.name))
    except OSError:  # it has ended
      continue
  return sorted(found)


def _is_ours(pid: int) -> bool:
  while pid > 1:
    if pid == os.getpid():
      return True
    pid = int(pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[1])
  return False


def get(port: int, path: str) -> int:
  connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
  try:
    connection.request('GET', path)
    return connection.getresponse().status
  except OSError:
    return 0
  finally:
    connection.close()


def ask(port: int, known: dict, names: list[str], until: float) -> list[Request]:
  """Requests one after the other."""
  done = []
  while (began := time.monotonic()) < until:
    name, text = random.choice(names), random.choice(TEXTS)
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    try:
      connection.request('POST', '/v1/completions', json.dumps({'model': name, 'prompt': text}))
      found = connection.getresponse()
      status, body = found.status, found.read()
    except (OSError, http.client.HTTPException) as error:
      status, body = 0, repr(error).encode()
    finally:
      connection.close()
    right = True
    if status == 200:
      (choice,), (label, share) = json.loads(body)['choices'], known[name, text]
      right = choice['text'] == label and abs(choice['probabilities'][label] - share) < 1e-4
    done.append(Request(began, time.monotonic(), status, right, body))
  return done


def told(requests: list[Request], killed: float, until: float) -> bool:
  """Prints the figures; whether all was as it must be."""
  failed = [r for r in requests if r.status != 200]
  late = [r for r in failed if not r.began <= killed <= r.ended]
  rate = lambda a, b: sum(r.status == 200 and a <= r.ended < b for r in requests) / (b - a)
  wrong = sum(not r.right for r in requests)
  print(f'{len(requests)} requests: {wrong} wrong answers; {len(failed)} failed, {len(late)} of '
        'them not on their way when the replica was killed')  # fmt: skip
  print('status of those that failed:', dict(collections.Counter(r.status for r in failed)))
  for body in {r.body[:200] for r in failed}:
    print('  ', body)
  began = min(r.began for r in requests)
  print(f'answers a second: {rate(began, killed):.1f} before, {rate(killed, until):.1f} after; '
        f'longest {max(r.ended - r.began for r in requests):.1f} s')  # fmt: skip
  return not wrong and not late


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--prompts', type=int, default=8)
  parser.add_argument('--clients', type=int, default=8)
  parser.add_argument('--seconds', type=float, default=20.0)
  args = parser.parse_args()
  os.environ['RAY_USAGE_STATS_ENABLED'] = '0'
  from ray.cluster_utils import Cluster

  with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
    files = write_prompts(pathlib.Path(folder), args.prompts)
    known, names = expected_of(files), [pathlib.Path(f).stem for f in files]
    cluster = Cluster(
      initialize_head=True, head_node_args={'num_cpus': 1, 'include_dashboard': False}
    )
    cluster.add_node(num_cpus=1)
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
    free.close()
    began = time.monotonic()
    server = subprocess.Popen(
      [sys.executable, '-m', 'prompt_jax', 'serve', *files, '--ray', '--replicas=2',
       f'--port={port}', '--replica_cpus=1'],
      env={**os.environ, 'RAY_ADDRESS': cluster.address},
    )  # fmt: skip
    try:
      while get(port, '/health') != 200 or len(replicas()) < 2:
        assert server.poll() is None
        time.sleep(0.5)
      print(f'up in {time.monotonic() - began:.0f} s: replicas {replicas()}', flush=True)
      until = time.monotonic() + args.seconds
      with concurrent.futures.ThreadPoolExecutor(args.clients) as clients:
        running = [clients.submit(ask, port, known, names, until) for _ in range(args.clients)]
        time.sleep(args.seconds / 3)
        old = replicas()
        killed = time.monotonic()
        os.kill(old[0], signal.SIGKILL)
        requests = [r for each in running for r in each.result()]
      good = told(requests, killed, until)
      while len(set(replicas()) - {old[0]}) < 2 and time.monotonic() < killed + 180:
        time.sleep(0.5)
      print(f'two replicas again {time.monotonic() - killed:.0f} s after: {replicas()}')
      server.terminate()
      print('ended with', server.wait(60))
    finally:
      server.kill()
      server.wait()
      cluster.shutdown()
  sys.exit(0 if good else 1)


if __name__ == '__main__':
  main()
