"""What the benchmarks beside Hugging Face PEFT share: both models, clocks, processes."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

# T5 1.1 small.
SMALL = dict(
  vocab_size=32128, emb_dim=512, num_heads=6, head_dim=64,
  num_encoder_layers=8, num_decoder_layers=8, mlp_dim=1024,
)  # fmt: skip


def add_common(parser: argparse.ArgumentParser, sides: Iterable[str]) -> None:
  """The options that every benchmark has."""
  parser.add_argument('--batch', type=int, default=32, help='examples a step')
  parser.add_argument('--prompt', type=int, default=100, help='prompt rows')
  parser.add_argument('--threads', type=int, default=2, help='CPU cores, and threads on them')
  parser.add_argument('--rounds', type=int, default=3, help='processes of each side')
  parser.add_argument('--unroll', type=int, default=1, help='our T5Config.unroll')
  parser.add_argument('--only', choices=tuple(sides), help='one process of one side, as JSON')


def architecture(name: str) -> Any:
  """The T5Config of a file of gin/models, such as "t5_1_1/base"."""
  import gin

  from prompt_jax.configuration import run_files

  gin.clear_config()
  gin.parse_config_file(str(run_files.folder() / 'models' / f'{name}.gin'))
  with gin.config_scope('ARCHITECTURE'):
    return gin.get_configurable('gin.macro')()


def our_model(prompt: Any, unroll: int = 1, cfg: Any = None) -> tuple[Any, dict, dict]:
  """A prompted T5, its frozen random weights on the device, and what its prompt trains.

  Args:
    prompt: the method, an `InputPrompt`.
    unroll: see `T5Config`.
    cfg: a `T5Config`, in whose dtype weights are; None for T5 1.1 small.
  """
  import dataclasses
  import functools

  import jax
  import numpy as np
  from flax import traverse_util

  from prompt_jax.checkpoints.leaf import expected_shapes
  from prompt_jax.models.t5.config import T5Config
  from prompt_jax.models.t5.t5 import T5
  from prompt_jax.prompted import PromptedT5

  cfg = dataclasses.replace(cfg or T5Config(**SMALL), unroll=unroll)

  # On the device: those of XL take a CPU half a minute.
  @functools.partial(jax.jit, static_argnums=1)
  def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return (0.05 * jax.random.normal(key, shape)).astype(cfg.dtype)  # the same in any dtype

  flat = {
    path: draw(jax.random.key(i), shape)
    for i, (path, shape) in enumerate(sorted(expected_shapes(cfg).items()))
  }
  frozen = {'backbone': traverse_util.unflatten_dict(flat, sep='/')}
  rows = np.random.default_rng(0).normal(0, 1, (prompt.length, cfg.emb_dim)).astype(np.float32)
  return PromptedT5(T5(cfg), prompt), frozen, {'prompt': {'encoder': {'prompt': rows}}}


def our_batch(vocab_size: int, batch: int, inputs: int, targets: int) -> Any:
  """Random tokens without padding, on the device."""
  import jax
  import numpy as np

  from prompt_jax.batch import Batch

  rng = np.random.default_rng(1)
  tokens = rng.integers(2, vocab_size, (batch, inputs), np.int32)
  labels = rng.integers(2, vocab_size, (batch, targets), np.int32)
  shifted = np.pad(labels, ((0, 0), (1, 0)))[:, :-1]
  return jax.device_put(Batch(tokens, shifted, labels, np.ones(labels.shape, np.float32)))


def our_step(model: Any, frozen: dict, trainable: dict, tx: Any, **options: Any) -> Callable:
  """A step on one batch, which ends when the device has done it."""
  import jax

  from prompt_jax.training.objective import CrossEntropy
  from prompt_jax.training.optim import Update
  from prompt_jax.training.step import create_state, jit_train_step

  update = Update(tx)
  states = [create_state(trainable, update, seed=0)]
  static = {'objectives': (CrossEntropy(model),), 'updates': (update,)}
  run = jit_train_step(**options)

  def step(batch: Any) -> None:
    nonlocal states
    states, metrics = run(states, frozen, [{}], [{}], [batch], **static)
    jax.block_until_ready((states, metrics))

  return step


def peft_model(
  prompt_rows: int,
  threads: int,
  shape: Mapping[str, int] = SMALL,
  device: str = 'cpu',
  dtype: str = 'float32',
) -> Any:
  """PEFT's prompt tuning on a T5 of the same shape, its weights of a dtype of torch."""
  import torch
  from peft import PromptTuningConfig, TaskType, get_peft_model
  from transformers import T5Config, T5ForConditionalGeneration

  torch.set_num_threads(threads)
  config = T5Config(
    vocab_size=shape['vocab_size'],
    d_model=shape['emb_dim'],
    num_heads=shape['num_heads'],
    d_kv=shape['head_dim'],
    num_layers=shape['num_encoder_layers'],
    num_decoder_layers=shape['num_decoder_layers'],
    d_ff=shape['mlp_dim'],
    feed_forward_proj='gated-gelu',
    tie_word_embeddings=False,
    dropout_rate=0.0,
    decoder_start_token_id=0,
  )
  prompt = PromptTuningConfig(
    task_type=TaskType.SEQ_2_SEQ_LM,
    num_virtual_tokens=prompt_rows,
    num_transformer_submodules=1,
  )
  with torch.device(device):
    model = T5ForConditionalGeneration(config).to(getattr(torch, dtype))
  return get_peft_model(model, prompt).to(device)


def peft_step(prompt_rows: int, threads: int, **where: Any) -> Callable:
  """A training step of `peft_model`, which takes `where`, on (inputs, mask, labels)."""
  import torch

  model = peft_model(prompt_rows, threads, **where).train()
  tuned = [p for p in model.parameters() if p.requires_grad]
  assert sum(p.numel() for p in tuned) == prompt_rows * model.config.d_model
  optimizer = torch.optim.AdamW(tuned, lr=0.3)

  def step(inputs: Any, mask: Any, labels: Any) -> None:
    optimizer.zero_grad()
    model(input_ids=inputs, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
    optimizer.step()

  return step


def step_flops(
  shape: Mapping[str, int], batch: int, prompt: int, inputs: int, targets: int
) -> float:
  """Forward and backward to activations: 4 FLOPs per weight and token, 12 per key and query.

  Weights frozen, so the backward pass is one product a matrix instead of two; attention has no
  weights and its backward costs twice its forward.
  """
  c = argparse.Namespace(**shape)
  joined, s, u = c.num_heads * c.head_dim, inputs + prompt, targets
  attention, mlp = 4 * c.emb_dim * joined, 3 * c.emb_dim * c.mlp_dim
  encoder = 4 * s * c.num_encoder_layers * (attention + mlp)
  cross_keys_values = 4 * s * c.num_decoder_layers * attention / 2
  decoder = 4 * u * c.num_decoder_layers * (1.5 * attention + mlp)
  logits = 4 * u * c.emb_dim * c.vocab_size
  pairs = c.num_encoder_layers * s * s + c.num_decoder_layers * (u * u + u * s)
  return batch * (encoder + cross_keys_values + decoder + logits + 12 * pairs * joined)


def plain_matmul(
  flops: float, rows: int, shape: Mapping[str, int], threads: int
) -> Callable[[], None]:
  """As many FLOPs as a step has, by the product of its most frequent shape in torch."""
  import torch

  torch.set_num_threads(threads)
  x, w = torch.randn(rows, shape['emb_dim']), torch.randn(shape['emb_dim'], shape['mlp_dim'])
  out = torch.empty(rows, shape['mlp_dim'])
  repeats = max(1, round(flops / (2 * rows * w.numel())))

  def step() -> None:
    for _ in range(repeats):
      torch.matmul(x, w, out=out)

  return step


def timed(step: Callable[[], None], steps: int, warm_up: int = 2) -> dict:
  """Wall and CPU seconds of each step after some that warm up, and the process's peak memory."""
  for _ in range(warm_up):
    step()
  wall, cpu = [], []
  for _ in range(steps):
    before, used = time.perf_counter(), time.process_time()
    step()
    wall.append(time.perf_counter() - before)
    cpu.append(time.process_time() - used)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  return {'wall': wall, 'cpu': cpu, 'peak_gib': peak}


def pin(threads: int) -> None:
  """Keeps this process, and those it starts, on so many cores."""
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def alternate(
  sides: Iterable[str], rounds: int, *more: str, may_fail: bool = False
) -> dict[str, list[dict]]:
  """Runs each side in processes of its own, in turn; what they print as JSON.

  With `may_fail` a process that fails gives {"failed": why}, and its side has no more.
  """
  results: dict[str, list[dict]] = {name: [] for name in sides}
  for _ in range(rounds):
    for name, done in results.items():
      if done and 'failed' in done[-1]:
        continue
      command = [sys.executable, *sys.argv, *more, f'--only={name}']
      errors = subprocess.PIPE if may_fail else None
      run = subprocess.run(
        command, check=not may_fail, stdout=subprocess.PIPE, stderr=errors, text=True
      )
      if run.returncode:
        done.append({'failed': _mistake(run.stderr) or f'exit code {run.returncode}'})
      else:
        done.append(json.loads(run.stdout.splitlines()[-1]))
  return results


def _mistake(said: str) -> str:
  """The line of a traceback that names the exception; JAX writes more below it."""
  lines = [line.strip() for line in said.splitlines() if line.strip()]
  named = [line for line in lines if 'Error: ' in line.split('(')[0]]
  return (named or lines or [''])[-1][:160]


def median(runs: list[dict], key: str) -> float:
  """Over all steps of all processes of a side."""
  return statistics.median(x for run in runs for x in run[key])
