"""Times prompt tuning beside Hugging Face PEFT on the lengths of real data sets.

python scripts/bench_lengths.py --data DATA --tasks sst2,trec,mnli,boolq --vocabulary spiece.model

DATA has a folder of JSON Lines files for each task, as `prompt-jax train --folder` takes. T5 1.1
small with random weights, float32, AdamW, frozen backbone, dropout off on all sides:

  peft           random batches, padded to the longest of each
  peft_grouped   batches of similar length (sorted within 50 batches, as transformers' Trainer can)
  buckets        ours as published: every prompt row sees the input
  packed         the same, several examples a row
  shared         ours, the prompt does not see the input and is computed once a batch
  shared_packed  the same, several examples a row

Runs alternate in processes of their own. A process times `--steps` consecutive batches of an epoch,
and its rate is their examples by their seconds, or by the CPU seconds of its threads, which a
machine with other work stretches less; the table has medians over processes, and the share of
encoder positions that are padding. Compiling is not timed: every shape runs once before. Needs
the test extra, for torch, transformers and peft.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from bench_sides import add_common, alternate, our_model, our_step, peft_step, pin, timed

PEFT = ('peft', 'peft_grouped')
OURS = ('buckets', 'packed', 'shared', 'shared_packed')
GROUP = 50  # batches within which peft_grouped sorts


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  add_common(parser, (*PEFT, *OURS))
  parser.add_argument('--data', required=True, metavar='DIR', help='folder of the data sets')
  parser.add_argument('--tasks', default='sst2,trec,mnli,boolq', help='their names')
  parser.add_argument('--vocabulary', metavar='FILE', help='a SentencePiece model, if not ours')
  parser.add_argument('--sides', default=','.join((*PEFT, *OURS)), help='which to run')
  parser.add_argument('--input_length', type=int, default=512, help='most input tokens')
  parser.add_argument('--row_length', type=int, default=512, help='most positions of a packed row')
  parser.add_argument('--steps', type=int, default=16, help='timed steps of a process')
  parser.add_argument('--ids', help=argparse.SUPPRESS)  # tokenised once, for all processes
  return parser.parse_args(argv)


def tokenise(args: argparse.Namespace, task: str, path: str) -> None:
  """Writes the ids of a task's training examples: no side has to hold a tokeniser."""
  from prompt_jax.checkpoints.backbone import load_backbone
  from prompt_jax.data.example import Lengths
  from prompt_jax.data.vocabulary import load_vocabulary
  from prompt_jax.tasks.find import find

  if args.vocabulary:
    vocabulary = load_vocabulary(args.vocabulary)
  else:
    vocabulary = load_backbone('embedded').vocabulary
  examples = find(task, args.data).load('train', vocabulary, Lengths(args.input_length, 64))
  arrays = {}
  for name in ('inputs', 'targets'):
    ids = [getattr(e, name) for e in examples]
    arrays[name], arrays[f'{name}_ends'] = np.concatenate(ids), np.cumsum([len(x) for x in ids])
  np.savez(path, **arrays)


def read(path: str) -> list[tuple[np.ndarray, np.ndarray]]:
  with np.load(path) as arrays:
    parts = [np.split(arrays[n], arrays[f'{n}_ends'][:-1]) for n in ('inputs', 'targets')]
  return list(zip(*parts, strict=True))


def ours(args: argparse.Namespace) -> dict:
  import jax
  import optax

  from prompt_jax.data.batches import BatchStream
  from prompt_jax.data.example import Example
  from prompt_jax.data.packing import NO_SLOTS, PackedStream, Slots
  from prompt_jax.prompts.methods.input.input_prompt import InputPrompt

  examples = [Example(x, y, '', '', None, {}, '') for x, y in read(args.ids)]
  apart, packed = args.only.startswith('shared'), args.only.endswith('packed')
  if packed:
    slots = NO_SLOTS if apart else Slots(args.prompt)
    stream: Any = PackedStream(examples, args.batch, row_length=args.row_length, encoder=slots)
  else:
    stream = BatchStream(examples, args.batch)
  prompt = InputPrompt(length=args.prompt, sees_input=not apart)
  model, frozen, trainable = our_model(prompt, args.unroll)
  step = our_step(model, frozen, trainable, optax.adamw(0.3))
  batches = [stream.batch(n) for n in range(args.steps)]
  used = [b.encoder_segment_ids if packed else b.encoder_input_tokens for b in batches]
  widths = [(*b.encoder_input_tokens.shape, *b.decoder_input_tokens.shape) for b in batches]
  return in_turn(lambda b: step(jax.device_put(b)), batches, used, widths)


def peft(args: argparse.Namespace) -> dict:
  import torch

  examples = read(args.ids)
  order = np.random.default_rng(0).permutation(len(examples))
  if args.only == 'peft_grouped':
    order = grouped(order, [len(x) for x, _ in examples], args.batch)
  batches, used = [], []
  for n in range(args.steps):
    chosen = [examples[i] for i in order[n * args.batch :][: args.batch]]
    inputs, labels = (padded([e[k] for e in chosen]) for k in (0, 1))
    labels[labels == 0] = -100  # transformers leaves these out of the loss
    batches.append([torch.from_numpy(x) for x in (inputs, (inputs > 0).astype(np.int64), labels)])
    used.append(inputs)
  step = peft_step(args.prompt, args.threads)
  # torch compiles nothing, so that two batches warm it up.
  return in_turn(lambda b: step(*b), batches, used, [0 if n % 2 else 1 for n in range(args.steps)])


def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
  """int64[B, longest]."""
  found = np.zeros((len(rows), max(map(len, rows))), np.int64)
  for row, ids in zip(found, rows, strict=True):
    row[: len(ids)] = ids
  return found


def grouped(order: np.ndarray, lengths: list[int], batch: int) -> np.ndarray:
  """Sorted by length within groups of batches; then the batches in random order."""
  size = GROUP * batch
  groups = [order[i : i + size] for i in range(0, len(order), size)]
  rows = np.concatenate([sorted(g, key=lengths.__getitem__, reverse=True) for g in groups])
  whole = rows[: len(rows) // batch * batch].reshape(-1, batch)
  return np.random.default_rng(1).permutation(whole).reshape(-1)


def in_turn(
  step: Callable[[Any], None], batches: list, used: list[np.ndarray], shapes: Sequence
) -> dict:
  """Times a step on each batch, after one on a batch of each shape."""
  firsts = list({shape: batch for shape, batch in zip(shapes, batches, strict=True)}.values())
  queue = iter([*firsts, *batches])
  result = timed(lambda: step(next(queue)), len(batches), warm_up=len(firsts))
  filled = sum((x > 0).sum() for x in used) / sum(x.size for x in used)
  return {**result, 'padding': 1 - float(filled), 'shapes': len(firsts)}


def main() -> None:
  args = parse()
  pin(args.threads)
  if args.only:
    print(json.dumps((peft if args.only in PEFT else ours)(args)))
    return
  for task in args.tasks.split(','):
    with tempfile.TemporaryDirectory() as folder:
      path = os.path.join(folder, 'ids.npz')
      tokenise(args, task, path)
      lengths = [len(x) for x, _ in read(path)]
      results = alternate(args.sides.split(','), args.rounds, f'--ids={path}')
    print(f'\n{task}: {len(lengths)} examples of {statistics.mean(lengths):.1f} tokens', end='')
    print(f' (longest {max(lengths)}), {args.batch} a step, {args.prompt} prompt rows')
    report(args, results)


def report(args: argparse.Namespace, results: dict[str, list[dict]]) -> None:
  wall, cpu = ({n: rate(args, runs, key) for n, runs in results.items()} for key in ('wall', 'cpu'))
  print(f'{"":15}{"ex/s":>8}{"best PEFT":>11}{"ex/CPU s":>10}{"best PEFT":>11}', end='')
  print(f'{"padding":>9}{"shapes":>8}{"peak GiB":>10}')
  for name, runs in results.items():
    peak = max(run['peak_gib'] for run in runs)
    line = f'{name:15}{wall[name]:8.1f}{beside(name, wall):>11}{cpu[name]:10.1f}'
    line += f'{beside(name, cpu):>11}{100 * runs[0]["padding"]:8.0f}%'
    print(f'{line}{runs[0]["shapes"]:8}{peak:10.2f}')
  print(f'load: {" ".join(f"{x:.1f}" for x in os.getloadavg())}', flush=True)


def rate(args: argparse.Namespace, runs: list[dict], key: str) -> float:
  """Examples a second, the median over processes."""
  return statistics.median(args.batch * len(run[key]) / sum(run[key]) for run in runs)


def beside(name: str, rates: dict[str, float]) -> str:
  """As a multiple of the faster of PEFT's."""
  best = max((rates[n] for n in PEFT if n in rates), default=None)
  return '' if best is None else f'{rates[name] / best:.2f} x'


if __name__ == '__main__':
  main()
