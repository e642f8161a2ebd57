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
import resource
import statistics
import subprocess
import sys
import time

SMALL = dict(
  vocab_size=32128, emb_dim=512, num_heads=6, head_dim=64,
  num_encoder_layers=8, num_decoder_layers=8, mlp_dim=1024,
)  # fmt: skip


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--batch', type=int, default=32)
  parser.add_argument('--inputs', type=int, default=64, help='input tokens')
  parser.add_argument('--targets', type=int, default=8, help='target tokens')
  parser.add_argument('--prompt', type=int, default=100, help='prompt rows')
  parser.add_argument('--threads', type=int, default=2, help='CPU cores, and threads on them')
  parser.add_argument('--steps', type=int, default=5, help='timed steps of a process')
  parser.add_argument('--rounds', type=int, default=3, help='processes of each side')
  parser.add_argument('--unroll', type=int, default=1, help='our T5Config.unroll')
  parser.add_argument('--microbatches', type=int, help='parts of our batch, in turn')
  parser.add_argument('--only', choices=RUNS, help='one process of one side, as JSON')
  return parser.parse_args(argv)


def step_flops(args: argparse.Namespace) -> float:
  """Forward and backward to activations: 4 FLOPs per weight and token, 12 per key and query.

  Weights frozen, so the backward pass is one product a matrix instead of two; attention has no
  weights and its backward costs twice its forward.
  """
  c = argparse.Namespace(**SMALL)
  joined, s, u = c.num_heads * c.head_dim, args.inputs + args.prompt, args.targets
  attention, mlp = 4 * c.emb_dim * joined, 3 * c.emb_dim * c.mlp_dim
  encoder = 4 * s * c.num_encoder_layers * (attention + mlp)
  cross_keys_values = 4 * s * c.num_decoder_layers * attention / 2
  decoder = 4 * u * c.num_decoder_layers * (1.5 * attention + mlp)
  logits = 4 * u * c.emb_dim * c.vocab_size
  pairs = c.num_encoder_layers * s * s + c.num_decoder_layers * (u * u + u * s)
  return args.batch * (encoder + cross_keys_values + decoder + logits + 12 * pairs * joined)


def timed(step, steps: int) -> dict:
  """Wall and CPU seconds of each step after two that warm up, and the process's peak memory."""
  for _ in range(2):
    step()
  wall, cpu = [], []
  for _ in range(steps):
    before, used = time.perf_counter(), time.process_time()
    step()
    wall.append(time.perf_counter() - before)
    cpu.append(time.process_time() - used)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  return {'wall': wall, 'cpu': cpu, 'peak_gib': peak}


def ours(args: argparse.Namespace) -> dict:
  import functools

  import jax
  import numpy as np
  from flax import traverse_util

  from prompt_jax.batch import Batch
  from prompt_jax.checkpoints.check import expected_shapes
  from prompt_jax.models.config import T5Config
  from prompt_jax.models.t5 import T5
  from prompt_jax.prompted import PromptedT5
  from prompt_jax.prompts.input_prompt import InputPrompt
  from prompt_jax.training.losses import Loss
  from prompt_jax.training.optim import adafactor
  from prompt_jax.training.step import create_state, train_step

  cfg = T5Config(**SMALL, unroll=args.unroll)
  rng = np.random.default_rng(0)
  flat = {
    path: jax.device_put(rng.normal(0, 0.05, shape).astype(np.float32))
    for path, shape in expected_shapes(cfg).items()
  }
  frozen = {'backbone': traverse_util.unflatten_dict(flat, sep='/')}
  rows = rng.normal(0, 1, (args.prompt, cfg.emb_dim)).astype(np.float32)
  tx = adafactor(0.3)
  state = create_state({'prompt': {'encoder': {'prompt': rows}}}, tx, seed=0)
  inputs = rng.integers(2, cfg.vocab_size, (args.batch, args.inputs), np.int32)
  targets = rng.integers(2, cfg.vocab_size, (args.batch, args.targets), np.int32)
  shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  batch = jax.device_put(Batch(inputs, shifted, targets, np.ones(targets.shape, np.float32)))
  model = PromptedT5(T5(cfg), InputPrompt(length=args.prompt))
  run = functools.partial(
    train_step, model=model, tx=tx, loss=Loss(), microbatches=args.microbatches
  )
  run = jax.jit(run, donate_argnums=0)

  def step():
    nonlocal state
    state, metrics = run(state, frozen, {}, batch)
    jax.block_until_ready((state, metrics))

  return timed(step, args.steps)


def peft(args: argparse.Namespace) -> dict:
  import torch
  from peft import PromptTuningConfig, TaskType, get_peft_model
  from transformers import T5Config, T5ForConditionalGeneration

  torch.set_num_threads(args.threads)
  config = T5Config(
    vocab_size=SMALL['vocab_size'],
    d_model=SMALL['emb_dim'],
    num_heads=SMALL['num_heads'],
    d_kv=SMALL['head_dim'],
    num_layers=SMALL['num_encoder_layers'],
    num_decoder_layers=SMALL['num_decoder_layers'],
    d_ff=SMALL['mlp_dim'],
    feed_forward_proj='gated-gelu',
    tie_word_embeddings=False,
    dropout_rate=0.0,
    decoder_start_token_id=0,
  )
  prompt = PromptTuningConfig(
    task_type=TaskType.SEQ_2_SEQ_LM,
    num_virtual_tokens=args.prompt,
    num_transformer_submodules=1,
  )
  model = get_peft_model(T5ForConditionalGeneration(config), prompt).train()
  tuned = [p for p in model.parameters() if p.requires_grad]
  assert sum(p.numel() for p in tuned) == args.prompt * SMALL['emb_dim']
  optimizer = torch.optim.AdamW(tuned, lr=0.3)
  inputs = torch.randint(2, config.vocab_size, (args.batch, args.inputs))
  labels = torch.randint(2, config.vocab_size, (args.batch, args.targets))
  mask = torch.ones_like(inputs)

  def step():
    optimizer.zero_grad()
    model(input_ids=inputs, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
    optimizer.step()

  return timed(step, args.steps)


def matmul(args: argparse.Namespace) -> dict:
  """Seconds for as many FLOPs as a step, by the product of its most frequent shape in torch."""
  import torch

  torch.set_num_threads(args.threads)
  rows = args.batch * (args.inputs + args.prompt)
  x, w = torch.randn(rows, SMALL['emb_dim']), torch.randn(SMALL['emb_dim'], SMALL['mlp_dim'])
  repeats = round(step_flops(args) / (2 * rows * w.numel()))
  out = torch.empty(rows, SMALL['mlp_dim'])

  def step():
    for _ in range(repeats):
      torch.matmul(x, w, out=out)

  return timed(step, args.steps)


RUNS = {'prompt_jax': ours, 'peft': peft, 'matmul': matmul}


def main() -> None:
  args = parse()
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])
  if args.only:
    print(json.dumps(RUNS[args.only](args)))
    return
  results: dict[str, list[dict]] = {name: [] for name in RUNS}
  for _ in range(args.rounds):
    for name in RUNS:
      command = [sys.executable, __file__, *sys.argv[1:], f'--only={name}']
      done = subprocess.run(command, check=True, capture_output=True, text=True)
      results[name].append(json.loads(done.stdout.splitlines()[-1]))
  report(args, results)


def report(args: argparse.Namespace, results: dict[str, list[dict]]) -> None:
  median = {
    name: {key: statistics.median(x for run in runs for x in run[key]) for key in ('wall', 'cpu')}
    for name, runs in results.items()
  }
  flops = step_flops(args)
  print(f'{args.batch} examples a step, {flops / 1e12:.3f} TFLOP, {args.threads} cores')
  print(f'{"":12}{"s/step":>8}{"CPU s":>8}{"ex/s":>8}{"GFLOP/s":>9}{"peak GiB":>10}')
  for name, m in median.items():
    peak = max(run['peak_gib'] for run in results[name])
    line = f'{name:12}{m["wall"]:8.2f}{m["cpu"]:8.2f}{args.batch / m["wall"]:8.1f}'
    print(f'{line}{flops / m["wall"] / 1e9:9.0f}{peak:10.2f}')
  speed = median['peft']['wall'] / median['prompt_jax']['wall']
  cpu = median['peft']['cpu'] / median['prompt_jax']['cpu']
  floor = median['prompt_jax']['wall'] / median['matmul']['wall']
  print(f'prompt_jax / peft, examples per second: {speed:.2f} (by CPU time {cpu:.2f})')
  print(f'prompt_jax / floor, seconds: {floor:.2f}')
  print(f'load: {" ".join(f"{x:.1f}" for x in os.getloadavg())}')


if __name__ == '__main__':
  main()
