"""The server under load over loopback: many prompts against one, and what the server itself costs.

python scripts/bench_serve.py [--prompts 64] [--clients 16,64] [--seconds 10]
python scripts/bench_serve.py --minutes 60          # a soak: memory, and answers lost or crossed
python scripts/bench_serve.py --minutes 60 --rate 4 # the same with so many requests a second

Random prompts of 20 rows on the model in the package, two labels. Every answer is compared with
that of its prompt, computed before; the first prompts one by one, as `prompt-jax infer` does.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

LABELS = ('negative', 'positive')
TEXTS = [
  'a warm and funny film', 'dull from the first minute', 'the actors do what they can',
  'I have seen worse, but not this year', 'a story that stays with you',
  'too long by half an hour', 'charming', 'nobody knew how to end it',
]  # fmt: skip
ROWS = 20
ALONE = 4  # prompts that are asked one by one as well
TICKS = os.sysconf('SC_CLK_TCK')


def write_prompts(folder: pathlib.Path, count: int) -> list[str]:
  """Files of random prompts near the embeddings of the model."""
  import jax

  from prompt_jax.checkpoints.backbone import load_backbone
  from prompt_jax.checkpoints.prompt_file import Prompt, describe_method, save_prompt
  from prompt_jax.prompts.base import first_values
  from prompt_jax.prompts.methods.input.input_prompt import InputPrompt

  backbone, rng = load_backbone('embedded'), np.random.default_rng(0)
  table = np.asarray(backbone.params['token_embedder']['embedding'], np.float32)
  about = {
    'base_model': backbone.name, 'fingerprint': backbone.fingerprint, 'width': table.shape[1],
    'method': 'InputPrompt', 'method_config': describe_method(InputPrompt(length=ROWS)),
    'labels': list(LABELS), 'input_length': 32, 'target_length': 8,
  }  # fmt: skip
  _, variables = first_values(InputPrompt(length=ROWS), jax.random.key(0), backbone.config.sizes)
  first, files = variables['params'], []
  for i in range(count):
    rows = table[rng.integers(3, 2000, ROWS)] + rng.normal(scale=0.1, size=(ROWS, table.shape[1]))
    params = jax.tree.map(lambda x, rows=rows: rows.astype(np.float32).reshape(x.shape), first)
    files.append(str(folder / f'p{i:03}.safetensors'))
    save_prompt(files[-1], Prompt(params, {}, about))
  return files


def expected_of(files: list[str]) -> dict[tuple[str, str], tuple[str, float]]:
  """(prompt, text) -> the label and its probability."""
  import prompt_jax as pj

  names = [pathlib.Path(f).stem for f in files]
  many = pj.load(files)
  pairs = [(name, text) for name in names for text in TEXTS]
  found = many.predict([t for _, t in pairs], [n for n, _ in pairs])
  known = {p: (a.prediction, a.probability) for p, a in zip(pairs, found, strict=True)}
  for name, file in list(zip(names, files, strict=True))[:ALONE]:
    for text, answer in zip(TEXTS, pj.load(file).predict(TEXTS), strict=True):
      assert known[name, text][0] == answer.prediction
      assert abs(known[name, text][1] - answer.probability) < 1e-5
  return known


@contextlib.contextmanager
def server(argv: list[str]) -> Iterator[tuple[int, int]]:
  """(pid, port) of a process that is ready."""
  process = subprocess.Popen([sys.executable, *argv], stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None
  try:
    port = int(process.stdout.readline().rsplit(':', 1)[1])
    while asyncio.run(once(port, 'GET', '/health'))[0] != 200:
      time.sleep(0.5)
    yield process.pid, port
  finally:
    process.terminate()
    process.wait()


async def once(port: int, method: str, path: str, body: bytes = b'') -> tuple[int, bytes]:
  streams = await asyncio.open_connection('127.0.0.1', port)
  try:
    return await ask(streams, method, path, body)
  finally:
    streams[1].close()


async def ask(streams: Any, method: str, path: str, body: bytes) -> tuple[int, bytes]:
  """A request on an open connection."""
  reader, writer = streams
  head = f'{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n'
  writer.write(head.encode() + body)
  answer = await reader.readuntil(b'\r\n\r\n')
  size = re.search(rb'content-length: (\d+)', answer.lower())
  assert size, answer
  return int(answer.split()[1]), await reader.readexactly(int(size[1]))


class Load:
  """Requests, and what became of them."""

  def __init__(self, port: int, names: list[str], known: Any):
    self.port, self.names, self.known = port, names, known
    self.seconds: list[float] = []
    self.wrong = self.refused = 0

  async def one(self, streams: Any) -> None:
    name, text = random.choice(self.names), random.choice(TEXTS)
    body = json.dumps({'model': name, 'prompt': text}).encode()
    began = time.perf_counter()
    status, answer = await ask(streams, 'POST', '/v1/completions', body)
    self.seconds.append(time.perf_counter() - began)
    if status != 200:
      self.refused += 1
    elif self.known is not None:
      choice = json.loads(answer)['choices'][0]
      self.wrong += not self.is_right(choice, self.known[name, text])

  def is_right(self, choice: dict[str, Any], known: Any) -> bool:
    """Whether an answer has the label and the probability that `infer` gives it."""
    label, share = known
    return choice['text'] == label and abs(choice['probabilities'][label] - share) <= 1e-4

  async def _client(self, until: float) -> None:
    streams = await asyncio.open_connection('127.0.0.1', self.port)
    while time.perf_counter() < until:
      await self.one(streams)
    streams[1].close()

  async def closed(self, clients: int, seconds: float) -> float:
    """Each client asks again once it has its answer; requests a second."""
    began = time.perf_counter()
    await asyncio.gather(*(self._client(began + seconds) for _ in range(clients)))
    return len(self.seconds) / (time.perf_counter() - began)

  async def _timed(self) -> None:
    streams = await asyncio.open_connection('127.0.0.1', self.port)
    await self.one(streams)
    streams[1].close()

  async def open(self, rate: float, seconds: float) -> None:
    """Requests that come by chance, so many a second, whatever waits."""
    until, tasks = time.perf_counter() + seconds, []
    while time.perf_counter() < until:
      await asyncio.sleep(random.expovariate(rate))
      tasks.append(asyncio.create_task(self._timed()))
    await asyncio.gather(*tasks)

  def told(self) -> str:
    cuts = statistics.quantiles(self.seconds, n=100)
    return (
      f'p50 {1000 * cuts[49]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms, {len(self.seconds)} answers, '
      f'{self.refused} refused, {self.wrong} wrong'
    )


def cpu(pid: int) -> float:
  """CPU seconds of a process until now."""
  fields = pathlib.Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
  return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> float:
  """Resident MiB."""
  return int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1]) * 4096 / 2**20


def compare(args: argparse.Namespace, files: list[str], known: Any) -> None:
  """Many prompts against one, in turns."""
  names = [pathlib.Path(f).stem for f in files]
  with server(['-m', 'prompt_jax', 'serve', *files, '--port=0']) as (pid, port):
    for clients in args.clients:
      rates: dict[str, list[float]] = {'one': [], 'mixed': []}
      costs: dict[str, list[float]] = {'one': [], 'mixed': []}
      for turn in range(2 * args.turns):
        kind = ('one', 'mixed')[turn % 2]
        load, before = Load(port, names[:1] if kind == 'one' else names, known), cpu(pid)
        rates[kind].append(asyncio.run(load.closed(clients, args.seconds)))
        costs[kind].append(1000 * (cpu(pid) - before) / len(load.seconds))
        print(f'{clients} clients, {kind}: {rates[kind][-1]:.1f}/s, {costs[kind][-1]:.1f} ms CPU '
              f'a request, {load.told()}', flush=True)  # fmt: skip
      mean = {kind: statistics.mean(found) for kind, found in rates.items()}
      cost = {kind: statistics.mean(found) for kind, found in costs.items()}
      print(f'{clients} clients: mixed / one: {mean["mixed"] / mean["one"]:.2f} of the requests a '
            f'second, {cost["mixed"] / cost["one"]:.2f} of the CPU')  # fmt: skip
    load = Load(port, names, known)
    asyncio.run(load.open(mean['mixed'] / 2, 2 * args.seconds))
    print(f'half load, {mean["mixed"] / 2:.1f}/s: {load.told()}')
  one, many = at_rest(files[:1]), at_rest(files)
  print(f'memory: 1 prompt {one:.1f} MiB, {len(files)} prompts {many:.1f} MiB')


def at_rest(files: list[str]) -> float:
  """Resident MiB of a server that has compiled nothing itself: the second finds all programs."""
  for _ in range(2):
    with server(['-m', 'prompt_jax', 'serve', *files, '--port=0']) as (pid, _):
      found = memory(pid)
  return found


def own_cost(args: argparse.Namespace, files: list[str]) -> None:
  """CPU of the server alone: an engine that has every answer already."""
  with server([__file__, '--nothing', files[0]]) as (pid, port):
    load, before = Load(port, [pathlib.Path(files[0]).stem], None), cpu(pid)
    asyncio.run(load.closed(16, args.seconds))
    spent = 1000 * (cpu(pid) - before) / len(load.seconds)
    print(f'server without its engine: {spent:.2f} ms CPU a request, {load.told()}')


def serve_nothing(file: str) -> None:
  """A server whose engine computes a prompt once."""
  from prompt_jax.loading import BaseModel
  from prompt_jax.serving import listening, tuned_prompts
  from prompt_jax.serving.app import Server
  from prompt_jax.serving.asking import Limits
  from prompt_jax.serving.jax_engine import JaxEngine
  from prompt_jax.serving.rows import Row, Settings

  class Nothing(JaxEngine):
    answer: Any = None

    def __call__(self, rows: Any, settings: Any, tell: Any = None) -> Any:
      self.answer = self.answer or super().__call__(rows[:1], settings)[0]
      return [self.answer] * len(rows)

    def programs(self) -> Any:
      yield lambda: self([Row(self.names[0], np.ones(2, np.int32))], Settings('rank'))

  engine = Nothing(tuned_prompts.load(BaseModel(), [file]), 16)
  with listening.listen('127.0.0.1', 0) as socket:
    listening.answer(socket, Server(engine, Limits()))


def soak(args: argparse.Namespace, files: list[str], known: Any) -> None:
  """Mixed traffic for minutes."""
  names = [pathlib.Path(f).stem for f in files]
  with server(['-m', 'prompt_jax', 'serve', *files, '--port=0']) as (pid, port):
    end, sizes, load = time.monotonic() + 60 * args.minutes, [], Load(port, names, known)
    while time.monotonic() < end:
      seconds = min(10.0, end - time.monotonic())
      asyncio.run(
        load.open(args.rate, seconds) if args.rate else load.closed(args.clients[0], seconds)
      )
      sizes.append(memory(pid))
    first = sizes[len(sizes) // 5]
    print(f'{args.minutes:g} minutes: {load.told()}; memory {first:.1f} MiB after a fifth, '
          f'{sizes[-1]:.1f} at the end, at most {max(sizes):.1f}')  # fmt: skip


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--prompts', type=int, default=64)
  parser.add_argument('--clients', type=lambda x: [*map(int, x.split(','))], default=[16, 64])
  parser.add_argument('--seconds', type=float, default=10.0)
  parser.add_argument('--turns', type=int, default=2)
  parser.add_argument('--minutes', type=float)
  parser.add_argument('--rate', type=float, help='of a soak: requests a second')
  parser.add_argument('--nothing', help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.nothing:
    serve_nothing(args.nothing)
    return
  with tempfile.TemporaryDirectory() as folder:
    files = write_prompts(pathlib.Path(folder), args.prompts)
    known = expected_of(files)
    gc.collect()
    gc.freeze()  # a pause of this process would be taken for one of the server
    if args.minutes:
      soak(args, files, known)
    else:
      compare(args, files, known)
      own_cost(args, files)


if __name__ == '__main__':
  main()
