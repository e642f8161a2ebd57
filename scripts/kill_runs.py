"""Kills `train`, `population`, `pretrain` and `eval` at random moments, and compares their ends.

    python scripts/kill_runs.py --kills 100 --seed 0        # about half an hour on two CPUs

Each verb first runs undisturbed. Then the same command is started and killed (SIGKILL) at moments
drawn from the time that it took, up to five times; the next start must end, with the same bytes in
every file but those that hold times (the curve, TensorBoard's files, run states). After each kill
what is there must be whole: prompt files can be read, and files of `eval` are those of its end.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence

from prompt_jax.runtime import libtpu

MOST = 5  # kills of one run
TIMES = ('seconds', 'examples_per_second')  # in the records of a run
# Files and folders that hold times.
PASSING = ('state', 'tensorboard', 'curve.png', 'checksums.json', '.lock')
LOG = 'log.txt'
HARD = 600  # seconds after which a run is stuck


@dataclasses.dataclass(frozen=True)
class Verb:
  """A command, in any working folder, and what it left when nobody disturbed it.

  Attributes:
    name: of the verb.
    argv: the command; it writes into "out".
    whole: the folder of the undisturbed run.
    seconds: that it took.
  """

  name: str
  argv: Sequence[str]
  whole: pathlib.Path
  seconds: float


def child(folder: str, argv: Sequence[str]) -> None:
  """A run as `prompt-jax` makes it, in a process that may be killed."""
  log = os.open(pathlib.Path(folder, LOG), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  for stream in (1, 2):
    os.dup2(log, stream)
  os.chdir(folder)
  from prompt_jax.cli.main import main

  sys.exit(main(list(argv)))


def start(server, folder: pathlib.Path, argv: Sequence[str]):
  folder.mkdir(parents=True, exist_ok=True)
  process = server.Process(target=child, args=(str(folder), argv))
  process.start()
  return process


def finish(server, folder: pathlib.Path, argv: Sequence[str]) -> float:
  """Runs to the end; returns the seconds."""
  began = time.monotonic()
  process = start(server, folder, argv)
  process.join(HARD)
  if process.exitcode != 0:
    process.kill()
    said = (folder / LOG).read_text(errors='replace')
    raise SystemExit(f'exit code {process.exitcode} in {folder}:\n{said[-3000:]}')
  return time.monotonic() - began


def files(folder: pathlib.Path) -> dict[str, bytes]:
  """The files below a folder without what passes; of records, all but their times."""
  found = {}
  for path in sorted(folder.rglob('*')):
    name = path.relative_to(folder).as_posix()
    if path.is_file() and not any(part in PASSING for part in name.split('/')):
      found[name] = _without_times(path) if path.name == 'metrics.jsonl' else path.read_bytes()
  return found


def _without_times(path: pathlib.Path) -> bytes:
  rows = (json.loads(line) for line in path.read_text().splitlines())
  return repr([{k: v for k, v in row.items() if k not in TIMES} for row in rows]).encode()


def check_whole(verb: Verb, folder: pathlib.Path) -> None:
  """What a kill left can be read."""
  from prompt_jax.checkpoints.prompt_file import load_prompt

  for path in folder.rglob('*.safetensors'):
    if path.parent != folder or verb.name != 'pretrain':  # there lies the model
      load_prompt(path, None)
  if verb.name == 'eval':
    ends = files(verb.whole)
    for path in folder.glob('*.json*'):
      if path.name in ends and path.read_bytes() != ends[path.name]:
        raise SystemExit(f'{path} is not whole')


def commands(work: pathlib.Path) -> dict[str, list[str]]:
  """A small model and its data, and a command of each verb on them."""
  import jax
  import jax.numpy as jnp

  from prompt_jax.batch import Batch
  from prompt_jax.checkpoints.backbone import save_backbone
  from prompt_jax.data.vocabulary import ByteVocabulary
  from prompt_jax.models.t5.config import T5Config
  from prompt_jax.models.t5.t5 import T5
  from prompt_jax.prompted import PromptedT5

  cfg = T5Config(384, 32, 2, 8, 1, 1, 48)
  ones = jnp.ones((1, 2), jnp.int32)
  batch = Batch(ones, ones, ones, jnp.ones((1, 2)))
  params = PromptedT5(T5(cfg)).init(jax.random.key(0), batch)['params']['backbone']
  model = work / 'model'
  save_backbone(model, name='bytes', config=cfg, params=params, vocabulary=ByteVocabulary())
  words = (('good', 'great', 'fine'), ('bad', 'awful', 'poor'))
  rows = [f'it was {words[i % 2][i % 3]} no {i}\t{("good", "bad")[i % 2]}' for i in range(200)]
  (work / 'data.tsv').write_text('text\tlabel\n' + '\n'.join(rows) + '\n')
  lines = (f'the {i} birds sing of {i * 7} old trees and a river' for i in range(300))
  (work / 'corpus.txt').write_text('\n\n'.join(lines))
  cache = ['--output=out', f'--compilation_cache={work / "cache"}', '--device=cpu']
  data = [f'--model={model}', f'--data={work / "data.tsv"}', '--batch_size=8', *cache]
  sizes = ['--input_length=16', '--target_length=6', '--length=4', '--prompt=deep']
  sizes += ['--learning_rate=1']
  often = ['--save_every=2', '--eval_every=3']
  return {
    'train': ['train', *data, *sizes, *often, '--steps=40'],
    'population': [
      'population', *data, *sizes, *often, '--steps=40', '--seeds=0,1,2,3', '--halving=9',
    ],
    'pretrain': [
      'pretrain', f'--corpus={work / "corpus.txt"}', '--vocabulary=bytes', '--steps=20',
      '--adapt_steps=20', '--warmup_steps=2', '--batch_size=4', '--input_length=32',
      '--target_length=8', *often, *cache, '--gin.T5Config.vocab_size=384',
      '--gin.T5Config.emb_dim=32', '--gin.T5Config.num_heads=2', '--gin.T5Config.head_dim=16',
      '--gin.T5Config.mlp_dim=32',
    ],
    'eval': ['eval', *data, f'--prompt_file={work / "whole_train/out/prompt.safetensors"}'],
  }  # fmt: skip


def kill_often(server, verb: Verb, work: pathlib.Path, wanted: int, rng: random.Random) -> int:
  """Kills runs of a verb, and returns how many resumed runs ended as the undisturbed one."""
  done = ended = 0
  while done < wanted:
    folder = work / f'{verb.name}_{done}'
    for _ in range(min(rng.randint(1, MOST), wanted - done)):
      process = start(server, folder, verb.argv)
      process.join(rng.uniform(0.05, 1.0) * verb.seconds)
      if process.exitcode is not None:  # it was faster
        if process.exitcode != 0:
          raise SystemExit(f'{folder}:\n{(folder / LOG).read_text(errors="replace")[-3000:]}')
        continue
      process.kill()
      process.join()
      done += 1
      check_whole(verb, folder / 'out')
    finish(server, folder, verb.argv)
    expected, got = files(verb.whole), files(folder / 'out')
    if expected != got:
      names = expected.keys() | got.keys()
      differ = sorted(n for n in names if expected.get(n) != got.get(n))
      raise SystemExit(f'{folder} and {verb.whole} differ in {", ".join(differ)}')
    ended += 1
  return ended


def main(argv: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
  parser.add_argument('--kills', type=int, default=100, help='of all verbs together')
  parser.add_argument('--seed', type=int, default=0, help='of the moments')
  args = parser.parse_args(argv)
  libtpu.quiet_without_tpu()
  server = multiprocessing.get_context('forkserver')
  server.set_forkserver_preload([f'prompt_jax.cli.{v}' for v in ('train', 'population', 'eval')])
  rng = random.Random(args.seed)
  with tempfile.TemporaryDirectory(prefix='kill_runs_') as name:
    work = pathlib.Path(name)
    each = commands(work)
    for number, (verb, command) in enumerate(each.items()):
      whole = work / f'whole_{verb}'
      finish(server, whole, command)  # it compiles
      shutil.rmtree(whole / 'out')
      seconds = finish(server, whole, command)
      kills = args.kills // len(each) + (number < args.kills % len(each))
      runs = kill_often(server, Verb(verb, command, whole / 'out', seconds), work, kills, rng)
      print(f'{verb}: {kills} kills of {runs} runs of {seconds:.1f} s, all ended alike', flush=True)


if __name__ == '__main__':
  main()
