"""Times prompt tuning on a GPU beside Hugging Face PEFT, and writes the table as Markdown.

python scripts/bench_gpu.py --output table.md

T5 1.1 base, large and xl with random weights, bfloat16, frozen; gradient with respect to the prompt
alone, dropout off. Every side is a process of its own; sides alternate, and the table has medians
over all steps. "MFU" is the model's FLOPs (`scale.flops`: what frozen weights need, padding of
kernels not counted) over the chip's published dense bfloat16 peak. A side that fails, for lack of
memory say, has its error in the table. The second table compares loss and prompt gradient of a
smaller batch with those of the CPU in float32. Needs the extras `cuda` and `test`.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import re
import shlex
import sys
from typing import Any

from bench_sides import (
  add_common,
  alternate,
  architecture,
  median,
  our_batch,
  our_model,
  our_step,
  peft_step,
  timed,
)

# Dense bfloat16 TFLOP/s that NVIDIA publishes, by what the driver calls the chip.
PEAKS = (
  (r'A100', 312),
  (r'H100 80GB HBM3', 989),  # SXM; the PCIe and NVL cards are slower
  (r'H200$', 989),
  (r'L4$', 121),
  (r'RTX 4090$', 165),
)
# Settings of `T5Config`, and whether the prompt sees the input.
OURS: dict[str, tuple[dict[str, Any], bool]] = {
  'plain': ({}, True),
  'scores': ({'scores_dtype': 'bfloat16'}, True),
  'chunk': ({'query_chunk': 204}, True),
  'cudnn': ({'attention': 'cudnn'}, True),
  'shared': ({'attention': 'cudnn'}, False),
}
NAMES = {
  'plain': 'prompt_jax, `ATTENTION` plain',
  'scores': 'plain, `SCORES_DTYPE` bfloat16',
  'chunk': 'plain, `QUERY_CHUNK` 204',
  'cudnn': 'cudnn',
  'shared': 'cudnn, `PROMPT_SEES_INPUT=False`',
  'peft': 'PEFT, torch',
}
PARITY_ROWS, PARITY_INPUTS = 2, 64


def parse(argv: list[str] | None = None) -> argparse.Namespace:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  add_common(parser, (*NAMES, 'parity'))
  parser.add_argument('--sizes', default='base,large,xl', help='files of gin/models/t5_1_1')
  parser.add_argument('--sides', default=','.join(NAMES), help=f'of {", ".join(NAMES)}')
  parser.add_argument('--inputs', type=int, default=512, help='input tokens')
  parser.add_argument('--targets', type=int, default=16, help='target tokens')
  parser.add_argument('--steps', type=int, default=10, help='timed steps of a process')
  parser.add_argument('--parity', default='base', help='the size that is compared with the CPU')
  parser.add_argument('--peak', type=float, help='TFLOP/s of the chip, if it is none of the known')
  parser.add_argument('--output', metavar='FILE', help='the table; printed as well')
  parser.add_argument('--size', help='of the one process')
  args = parser.parse_args(argv)
  wrong = set(args.sides.split(',')) - set(NAMES)
  if wrong:
    parser.error(f'--sides: {", ".join(sorted(wrong))}; known: {", ".join(NAMES)}')
  return args


def configured(size: str, side: str, dtype: str = 'bfloat16') -> tuple[Any, Any]:
  """(cfg, sees_input) of one of our sides; the kernel only in the dtype that it takes."""
  settings, sees_input = OURS[side]
  cfg = dataclasses.replace(architecture(f't5_1_1/{size}'), dtype=dtype, **settings)
  return cfg, sees_input


def ours(args: argparse.Namespace) -> dict:
  import jax

  from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
  from prompt_jax.training.optim import adafactor

  cfg, sees_input = configured(args.size, args.only)
  prompt = InputPrompt(length=args.prompt, sees_input=sees_input)
  model, frozen, trainable = our_model(prompt, args.unroll, cfg)
  batch = our_batch(cfg.vocab_size, args.batch, args.inputs, args.targets)
  step = our_step(model, frozen, trainable, adafactor(0.3), microbatches=1)
  result = timed(lambda: step(batch), args.steps)
  device = jax.devices()[0]
  found = device.memory_stats()  # None on a CPU, whose peak is the process's
  if found:
    result['peak_gib'] = found['peak_bytes_in_use'] / 2**30
  return {**result, 'device': device.device_kind}


def peft(args: argparse.Namespace) -> dict:
  import torch

  cfg = architecture(f't5_1_1/{args.size}')
  cuda = torch.cuda.is_available()
  device = 'cuda' if cuda else 'cpu'
  shape = dataclasses.asdict(cfg)
  run = peft_step(args.prompt, args.threads, shape=shape, device=device, dtype='bfloat16')
  draw = lambda n: torch.randint(2, cfg.vocab_size, (args.batch, n), device=device)
  inputs, labels = draw(args.inputs), draw(args.targets)
  mask = torch.ones_like(inputs)

  def step() -> None:
    run(inputs, mask, labels)
    if cuda:
      torch.cuda.synchronize()

  if cuda:
    torch.cuda.reset_peak_memory_stats()  # float32 weights were there before
  result = timed(step, args.steps)
  if cuda:
    result['peak_gib'] = torch.cuda.max_memory_allocated() / 2**30
  return {**result, 'device': torch.cuda.get_device_name() if cuda else 'cpu'}


def parity(args: argparse.Namespace) -> dict:
  """{setting: [difference of loss, of gradient] or an error}, relative to float32 on the CPU."""
  import jax
  import numpy as np

  wanted = gradient_of(args, 'plain', 'float32', jax.local_devices(backend='cpu')[0])
  sides = [side for side in args.sides.split(',') if side in OURS and OURS[side][1]]
  found: dict[str, Any] = {}
  for side, dtype in [('plain', 'float32'), *((side, 'bfloat16') for side in sides)]:
    try:
      loss, gradient = gradient_of(args, side, dtype, jax.devices()[0])
    except Exception as e:  # of any kind: a line of the table
      found[f'{side}, {dtype}'] = f'{type(e).__name__}: {str(e).splitlines()[0][:160]}'
      continue
    off = np.linalg.norm(gradient - wanted[1]) / np.linalg.norm(wanted[1])
    found[f'{side}, {dtype}'] = [abs(loss / wanted[0] - 1), float(off)]
  return found


def gradient_of(args: argparse.Namespace, side: str, dtype: str, device: Any) -> tuple[float, Any]:
  """The loss, and its gradient by the prompt as float64[P, H], of a small batch on a device."""
  import jax
  import numpy as np

  from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
  from prompt_jax.training.objective import BatchLoss, CrossEntropy

  cfg, _ = configured(args.parity, side, dtype)
  with jax.default_device(device), jax.default_matmul_precision('highest'):
    with jax.default_device(jax.local_devices(backend='cpu')[0]):  # the same numbers for all
      model, frozen, trainable = our_model(
        InputPrompt(length=args.prompt), cfg=dataclasses.replace(cfg, attention='plain')
      )
    model = model.clone(backbone=model.backbone.clone(cfg=cfg))
    place = lambda x: jax.device_put(np.asarray(x), device)
    frozen, trainable = jax.tree.map(place, (frozen, trainable))
    batch = our_batch(cfg.vocab_size, PARITY_ROWS, min(PARITY_INPUTS, args.inputs), args.targets)
    call = lambda trainable, frozen, batch: BatchLoss(
      CrossEntropy(model), frozen, {}, batch, microbatches=1
    ).gradient(trainable, jax.random.key(0))
    gradient, metrics = jax.jit(call)(trainable, frozen, batch)
  rows = gradient['prompt']['encoder']['prompt']
  return float(metrics['loss']), np.asarray(rows, np.float64)


def flops_of(args: argparse.Namespace, size: str, side: str) -> float:
  from prompt_jax.scale.flops import of_rows, train_flops

  cfg = architecture(f't5_1_1/{size}')
  if side == 'shared':
    positions = of_rows(args.batch, args.inputs, args.targets, apart=args.prompt)
  else:
    positions = of_rows(args.batch, args.inputs + args.prompt, args.targets)
  return train_flops(cfg, positions)


def peak_of(device: str, given: float | None) -> float | None:
  """TFLOP/s of a chip, None of one that is not known."""
  if given:
    return given
  return next((peak for name, peak in PEAKS if re.search(name, device)), None)


def rows_of(args: argparse.Namespace, size: str, results: dict[str, list[dict]]) -> list[str]:
  """The lines of one size; what PEFT does not reach has no ratio."""
  lines = []
  good = {name: [r for r in runs if 'failed' not in r] for name, runs in results.items()}
  reference = median(good['peft'], 'wall') if good.get('peft') else None
  for name, runs in results.items():
    if not good[name]:
      lines.append(f'| {size} | {NAMES[name]} | {runs[-1]["failed"].replace("|", "/")} | | | | |')
      continue
    seconds, device = median(good[name], 'wall'), good[name][0]['device']
    peak = peak_of(device, args.peak)
    mfu = f'{flops_of(args, size, name) / seconds / peak / 1e10:.1f} %' if peak else 'unknown'
    times = f'{reference / seconds:.2f}' if reference else ''
    memory = max(run['peak_gib'] for run in good[name])
    lines.append(
      f'| {size} | {NAMES[name]} | {1 / seconds:.2f} | {args.batch / seconds:.1f} | {times} '
      f'| {mfu} | {memory:.2f} |'
    )
  return lines


def table(
  args: argparse.Namespace, measured: dict[str, dict[str, list[dict]]], compared: dict
) -> str:
  devices = {
    run['device'] for runs in measured.values() for side in runs.values() for run in side
    if 'device' in run
  }  # fmt: skip
  versions = ', '.join(
    f'{name} {importlib.metadata.version(name)}'
    for name in ('jax', 'torch', 'transformers', 'peft')
  )
  lines = [
    f'{", ".join(sorted(devices)) or "no device"}; {versions}; batch {args.batch}, {args.inputs} '
    f'input tokens, {args.prompt} prompt rows, {args.targets} target tokens; bfloat16.',
    '',
    '| T5 1.1 | side | steps/s | examples/s | of PEFT | MFU | peak GiB |',
    '| --- | --- | ---: | ---: | ---: | ---: | ---: |',
  ]
  for size, results in measured.items():
    lines += rows_of(args, size, results)
  lines += [
    '',
    f'| {args.parity}, beside the CPU in float32 | loss | prompt gradient |',
    '| --- | ---: | ---: |',
  ]
  for name, found in compared.items():
    if isinstance(found, str):
      lines.append(f'| {name} | {found.replace("|", "/")} | |')
    else:
      lines.append(f'| {name} | {found[0]:.1e} | {found[1]:.1e} |')
  return '\n'.join([*lines, '', f'    python {shlex.join(sys.argv)}', ''])


def main() -> None:
  args = parse()
  if args.only:
    run = {'peft': peft, 'parity': parity}.get(args.only, ours)
    print(json.dumps(run(args)))
    return
  sides = args.sides.split(',')
  measured = {
    size: alternate(sides, args.rounds, f'--size={size}', may_fail=True)
    for size in args.sizes.split(',')
  }
  (compared,) = alternate(['parity'], 1, may_fail=True)['parity']
  text = table(args, measured, compared)
  print(text)
  if args.output:
    with open(args.output, 'w', encoding='utf-8') as file:
      file.write(text)


if __name__ == '__main__':
  main()
