"""Times a prompt-tuning step beside Hugging Face PEFT on the same CPU cores.

python scripts/bench_train_step.py --rounds 3

T5 1.1 small with random weights, float32, frozen backbone, gradient with respect to the prompt
alone, dropout off in both. Runs alternate in processes of their own; the table has medians over
all steps, the ratio, peak memory, and the floor: the FLOPs of the step at the rate of a plain
matrix product. Needs the test extra, for torch, transformers and peft.
"""

import argparse
import json
import os

from bench_sides import (
  SMALL,
  add_common,
  alternate,
  median,
  our_batch,
  our_model,
  our_step,
  peft_step,
  pin,
  plain_matmul,
  step_flops,
  timed,
)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  add_common(parser, RUNS)
  parser.add_argument('--inputs', type=int, default=64, help='input tokens')
  parser.add_argument('--targets', type=int, default=8, help='target tokens')
  parser.add_argument('--steps', type=int, default=5, help='timed steps of a process')
  parser.add_argument('--microbatches', type=int, help='parts of our batch, in turn')
  return parser.parse_args(argv)


def flops_of(args: argparse.Namespace) -> float:
  return step_flops(SMALL, args.batch, args.prompt, args.inputs, args.targets)


def ours(args: argparse.Namespace, sees_input: bool = True) -> dict:
  from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
  from prompt_jax.training.optim import adafactor

  prompt = InputPrompt(length=args.prompt, sees_input=sees_input)
  model, frozen, trainable = our_model(prompt, args.unroll)
  batch = our_batch(SMALL['vocab_size'], args.batch, args.inputs, args.targets)
  step = our_step(model, frozen, trainable, adafactor(0.3), microbatches=args.microbatches)
  return timed(lambda: step(batch), args.steps)


def shared(args: argparse.Namespace) -> dict:
  """The prompt does not see the input, and is computed once a batch."""
  return ours(args, sees_input=False)


def peft(args: argparse.Namespace) -> dict:
  import torch

  step = peft_step(args.prompt, args.threads)
  inputs = torch.randint(2, SMALL['vocab_size'], (args.batch, args.inputs))
  labels = torch.randint(2, SMALL['vocab_size'], (args.batch, args.targets))
  mask = torch.ones_like(inputs)
  return timed(lambda: step(inputs, mask, labels), args.steps)


def matmul(args: argparse.Namespace) -> dict:
  rows = args.batch * (args.inputs + args.prompt)
  return timed(plain_matmul(flops_of(args), rows, SMALL, args.threads), args.steps)


RUNS = {'prompt_jax': ours, 'shared': shared, 'peft': peft, 'matmul': matmul}


def main() -> None:
  args = parse()
  pin(args.threads)
  if args.only:
    print(json.dumps(RUNS[args.only](args)))
    return
  report(args, alternate(RUNS, args.rounds))


def report(args: argparse.Namespace, results: dict[str, list[dict]]) -> None:
  found = {
    name: {key: median(runs, key) for key in ('wall', 'cpu')} for name, runs in results.items()
  }
  flops = flops_of(args)
  print(f'{args.batch} examples a step, {flops / 1e12:.3f} TFLOP, {args.threads} cores')
  print(f'{"":12}{"s/step":>8}{"CPU s":>8}{"ex/s":>8}{"GFLOP/s":>9}{"peak GiB":>10}')
  for name, m in found.items():
    peak = max(run['peak_gib'] for run in results[name])
    line = f'{name:12}{m["wall"]:8.2f}{m["cpu"]:8.2f}{args.batch / m["wall"]:8.1f}'
    rate = '' if name == 'shared' else f'{flops / m["wall"] / 1e9:.0f}'  # it computes less
    print(f'{line}{rate:>9}{peak:10.2f}')
  for name in ('prompt_jax', 'shared'):
    speed, cpu = (found['peft'][key] / found[name][key] for key in ('wall', 'cpu'))
    print(f'{name} / peft, examples per second: {speed:.2f} (by CPU time {cpu:.2f})')
  floor = found['prompt_jax']['wall'] / found['matmul']['wall']
  print(f'prompt_jax / floor, seconds: {floor:.2f}')
  print(f'load: {" ".join(f"{x:.1f}" for x in os.getloadavg())}')


if __name__ == '__main__':
  main()
