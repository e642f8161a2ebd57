"""Times many prompts trained together beside as many runs one after the other.

python scripts/bench_population.py --model small --rounds 3

Both sides train K prompts of the same method with learning rates of their own on the same frozen
model and batches; "apart" compiles and runs K steps of one prompt, as K runs do, all in one
process. Sides alternate in processes of their own. The table has prompt-steps per second (steps of
one prompt), medians over all timed steps without compiling; the seconds of a whole run of --whole
steps with it; peak memory; and the floor, the FLOPs of the steps as plain matrix products.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

from bench_sides import SMALL, plain_matmul, step_flops

# The model in the package.
EMBEDDED = dict(
  vocab_size=8192, emb_dim=256, num_heads=4, head_dim=64,
  num_encoder_layers=4, num_decoder_layers=2, mlp_dim=512,
)  # fmt: skip


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--model', choices=('embedded', 'small'), default='embedded')
  parser.add_argument('--prompts', type=int, default=8, help='K')
  parser.add_argument('--at_once', type=int, help='most prompts computed together; all by default')
  parser.add_argument('--batch', type=int, default=16)
  parser.add_argument('--inputs', type=int, default=32, help='input tokens')
  parser.add_argument('--targets', type=int, default=4, help='target tokens')
  parser.add_argument('--length', type=int, default=20, help='prompt rows')
  parser.add_argument('--threads', type=int, default=2, help='CPU cores; 0 leaves them alone')
  parser.add_argument('--steps', type=int, default=5, help='timed steps of each prompt')
  parser.add_argument('--whole', type=int, default=1000, help='steps of a run, compiling included')
  parser.add_argument('--rounds', type=int, default=3, help='processes of each side')
  parser.add_argument('--only', choices=SIDES, help='one process of one side, as JSON')
  return parser.parse_args(argv)


def setting(args: argparse.Namespace):
  """The model, its frozen weights, K states with their updates, and K batches."""
  import jax
  import numpy as np
  from flax import traverse_util

  from prompt_jax.batch import Batch
  from prompt_jax.checkpoints.backbone import load_backbone
  from prompt_jax.checkpoints.leaf import expected_shapes
  from prompt_jax.models.t5.config import T5Config
  from prompt_jax.models.t5.t5 import T5
  from prompt_jax.prompted import PromptedT5
  from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
  from prompt_jax.training.optim import Update, adafactor
  from prompt_jax.training.step import create_state

  rng = np.random.default_rng(0)
  if args.model == 'embedded':
    backbone = load_backbone('embedded', 'float32')
    cfg, params = backbone.config, backbone.params
  else:
    cfg = T5Config(**SMALL)
    flat = {
      path: rng.normal(0, 0.05, shape).astype(np.float32)
      for path, shape in expected_shapes(cfg).items()
    }
    params = traverse_util.unflatten_dict(flat, sep='/')
  updates = [Update(adafactor(0.1 * (k + 1))) for k in range(args.prompts)]
  states = []
  for k, update in enumerate(updates):
    rows = rng.normal(0, 1, (args.length, cfg.emb_dim)).astype(np.float32)
    states.append(create_state({'prompt': {'encoder': {'prompt': rows}}}, update, seed=k))
  batches = []
  for _ in updates:
    inputs = rng.integers(2, cfg.vocab_size, (args.batch, args.inputs), np.int32)
    targets = rng.integers(2, cfg.vocab_size, (args.batch, args.targets), np.int32)
    shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
    batches.append(Batch(inputs, shifted, targets, np.ones(targets.shape, np.float32)))
  model = PromptedT5(T5(cfg), InputPrompt(length=args.length))
  return model, *jax.device_put(({'backbone': params}, states, batches)), updates


def apart(args: argparse.Namespace) -> dict:
  """A run of its own for each prompt, whose step is compiled for its optimizer."""
  model, frozen, states, batches, updates = setting(args)
  compiling, seconds = 0.0, []
  for state, batch, update in zip(states, batches, updates, strict=True):
    step, took = compiled([state], frozen, [batch], model, [update])
    compiling += took
    seconds.append(timed(step, [state], args.steps))
  # A round of the K prompts, from the same number of steps of each.
  rounds = [sum(of_step) for of_step in zip(*seconds, strict=True)]
  return measured(args, compiling, rounds)


def together(args: argparse.Namespace) -> dict:
  model, frozen, states, batches, updates = setting(args)
  step, took = compiled(states, frozen, batches, model, updates, args.at_once)
  return measured(args, took, timed(step, states, args.steps))


def compiled(states, frozen, batches, model, updates, at_once=None):
  """A step of some prompts, of their states; and the seconds that compiling it took."""
  from prompt_jax.training.objective import CrossEntropy
  from prompt_jax.training.step import jit_train_step

  nothing = [{} for _ in states]
  static = {'objectives': (CrossEntropy(model),) * len(states), 'updates': tuple(updates)}
  began = time.perf_counter()
  lowered = jit_train_step(at_once=at_once).lower(
    states, frozen, nothing, nothing, batches, **static
  )
  step = lowered.compile()
  run = lambda states: step(states, frozen, nothing, nothing, batches)[0]
  return run, time.perf_counter() - began


def timed(step, state, steps: int) -> list[float]:
  """Seconds of each of some steps, after one that is not timed."""
  import jax

  state = jax.block_until_ready(step(state))
  seconds = []
  for _ in range(steps):
    began = time.perf_counter()
    state = jax.block_until_ready(step(state))
    seconds.append(time.perf_counter() - began)
  return seconds


def measured(args: argparse.Namespace, compiling: float, rounds: list[float]) -> dict:
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  return {'compiling': compiling, 'rounds': rounds, 'peak_gib': peak}


def matmul(args: argparse.Namespace) -> dict:
  """The floor: as many FLOPs as K steps have, as plain products."""
  shape = EMBEDDED if args.model == 'embedded' else SMALL
  flops = step_flops(shape, args.batch, args.length, args.inputs, args.targets)
  rows = args.batch * (args.inputs + args.length)
  step = plain_matmul(args.prompts * flops, rows, shape, args.threads or os.cpu_count() or 1)
  return measured(args, 0.0, timed(lambda _: step(), None, args.steps))


SIDES = {'apart': apart, 'together': together, 'matmul': matmul}


def main() -> None:
  args = parse()
  if args.threads:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
  if args.only:
    print(json.dumps(SIDES[args.only](args)))
    return
  results: dict[str, list[dict]] = {name: [] for name in SIDES}
  for _ in range(args.rounds):
    for name in SIDES:
      command = [sys.executable, __file__, *sys.argv[1:], f'--only={name}']
      done = subprocess.run(command, check=True, capture_output=True, text=True)
      results[name].append(json.loads(done.stdout.splitlines()[-1]))
  report(args, results)


def report(args: argparse.Namespace, results: dict[str, list[dict]]) -> None:
  k = args.prompts
  shape = f'{args.batch} x ({args.length} + {args.inputs}) -> {args.targets}'
  print(f'{k} prompts, {args.model}, {shape}, {args.threads or "all"} threads')
  print(f'{"":10}{"prompt-steps/s":>16}{"compile s":>11}{f"{args.whole} steps, s":>15}{"GiB":>8}')
  rates, wholes = {}, {}
  for name, runs in results.items():
    seconds = statistics.median(s for run in runs for s in run['rounds'])
    compiling = statistics.median(run['compiling'] for run in runs)
    peak = max(run['peak_gib'] for run in runs)
    rates[name], wholes[name] = k / seconds, compiling + args.whole * seconds
    print(f'{name:10}{rates[name]:16.2f}{compiling:11.1f}{wholes[name]:15.1f}{peak:8.2f}')
  print(f'together / apart, without compiling: {rates["together"] / rates["apart"]:.2f}')
  print(f'with it, over {args.whole} steps: {wholes["apart"] / wholes["together"]:.2f}')
  print(f'load: {" ".join(f"{x:.1f}" for x in os.getloadavg())}')


if __name__ == '__main__':
  main()
