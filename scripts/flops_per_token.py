"""FLOPs of a training step per token that is not padding, from the lengths of real data sets.

python scripts/flops_per_token.py --data DATA --tasks sst2,boolq --vocabulary spiece.model

DATA has a folder of JSON Lines files for each task, as `prompt-jax train --folder` takes. Counted
are the FLOPs that `prompt-jax plan` calls ideal (`scale.flops`), over the batches of one epoch:

  fixed          every input padded to --inputs and every target to --targets, as published
  buckets        batches of similar length, every prompt row sees the input
  packed         several examples a row
  shared         buckets, the prompt does not see the input and is computed once a device and batch
  shared_packed  the same, several examples a row

A real token is one of an input or target, end of sequence included; rows of the prompt are none.
"""

import argparse
import dataclasses

import numpy as np
from bench_sides import architecture


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--model', default='t5_1_1/xxl', help='a file of gin/models')
  parser.add_argument('--data', required=True, metavar='DIR', help='folder of the data sets')
  parser.add_argument('--tasks', default='sst2,boolq', help='their names')
  parser.add_argument('--vocabulary', required=True, metavar='FILE', help='a SentencePiece model')
  parser.add_argument('--batch', type=int, default=32, help='examples a step')
  parser.add_argument('--devices', type=int, default=16, help='over which they lie')
  parser.add_argument('--prompt', type=int, default=100, help='prompt rows')
  parser.add_argument('--inputs', type=int, default=512, help='most input tokens')
  parser.add_argument('--row_length', type=int, default=640, help='most positions of a packed row')
  parser.add_argument('--targets', type=int, default=16, help='most target tokens')
  parser.add_argument('--multiple', type=int, default=8, help='of which widths are multiples')
  parser.add_argument('--examples', type=int, default=8192, help='most of a task, drawn at random')
  return parser.parse_args(argv)


def examples_of(args: argparse.Namespace, task: str) -> list:
  from prompt_jax.data.example import Lengths
  from prompt_jax.data.vocabulary import load_vocabulary
  from prompt_jax.tasks.find import find

  lengths = Lengths(args.inputs, args.targets)
  found = find(task, args.data).load('train', load_vocabulary(args.vocabulary), lengths)
  order = np.random.default_rng(0).permutation(len(found))
  return [found[i] for i in order[: args.examples]]


def counted(args: argparse.Namespace, examples: list) -> dict:
  """For each way the positions of an epoch, in a list."""
  from prompt_jax.data.batches import BatchStream
  from prompt_jax.data.packing import NO_SLOTS, PackedStream, Slots
  from prompt_jax.scale.flops import of_rows

  batch, prompt, devices = args.batch, args.prompt, args.devices
  stream = BatchStream(examples, batch, multiple=args.multiple)
  epoch = range(stream.batches_per_epoch)
  shapes = [stream.rows(n).bucket for n in epoch]
  widths = [(stream.shapes.inputs[b], stream.shapes.targets[b]) for b in shapes]
  found = {
    'fixed': [of_rows(batch, args.inputs + prompt, args.targets) for _ in epoch],
    'buckets': [of_rows(batch, t + prompt, u) for t, u in widths],
    'shared': [of_rows(batch, t, u, prompt, devices) for t, u in widths],
  }
  for name, slots, apart in (('packed', Slots(prompt), 0), ('shared_packed', NO_SLOTS, prompt)):
    packed = PackedStream(
      examples, batch, row_length=args.row_length, multiple=args.multiple, encoder=slots
    )
    _, inputs, targets = packed.shape
    rows = [packed.packed(n).rows for n in epoch]
    found[name] = [of_rows(r, inputs, targets, apart, devices) for r in rows]
  return found


def main() -> None:
  args = parse()
  from prompt_jax.scale.flops import Positions, train_flops

  cfg = architecture(args.model)
  for task in args.tasks.split(','):
    examples = examples_of(args, task)
    tokens = sum(len(e.inputs) + len(e.targets) for e in examples)
    mean = np.mean([len(e.inputs) for e in examples])
    print(f'\n{task}: {len(examples)} examples of {mean:.1f} input tokens, {args.model}, '
          f'{args.batch} a step, {args.prompt} prompt rows')  # fmt: skip
    print(f'{"":15}{"encoder positions":>18}{"GFLOP":>9}{"fewer":>8}')
    print(f'{"":15}{"an example":>18}{"a token":>9}')
    fixed = None
    for name, batches in counted(args, examples).items():
      total = Positions(*map(sum, zip(*map(dataclasses.astuple, batches), strict=True)))
      flops, positions = train_flops(cfg, total) / tokens, total.encoder / len(examples)
      fixed = fixed or flops
      print(f'{name:15}{positions:18.1f}{flops / 1e9:9.1f}{fixed / flops:7.1f}x')


if __name__ == '__main__':
  main()
