"""Prints, as JSON, what one device and several make of the same step and the same decoding.

    export XLA_FLAGS=--xla_force_host_platform_device_count=8
    python -m tests.sharding.eight_devices METHOD [METHOD ...] [packed]

With "packed" at the end, of a step with packed rows.

A process of its own: the number of devices is fixed when JAX starts.
"""

import dataclasses
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import pallas as pl

from prompt_jax.batch import Batch
from prompt_jax.data.example import Example
from prompt_jax.inference.decode import greedy
from prompt_jax.models.attention import cudnn, fused
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5, variables_of
from prompt_jax.prompts.initialise import initialise_prompt
from prompt_jax.prompts.initializers import Normal
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.adept import ADePT
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.inside.mam import MAM
from prompt_jax.prompts.methods.multitask.task_prompts import TaskPrompts
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.prompts.tables import Plain
from prompt_jax.runs.packing import Packing, packed_stream
from prompt_jax.sharding import placement
from prompt_jax.testing import tiny
from prompt_jax.training.objective import CrossEntropy, split
from prompt_jax.training.optim import Update
from prompt_jax.training.step import create_state, train_step
from tests.models import cudnn_in_xla

ROWS = Plain(initializer=Normal())
# One for each field of an injection, and two that packed rows treat apart.
METHODS = {
  'input': InputPrompt(length=4, table=ROWS),
  'kv': PrefixTuning(length=3, table=ROWS),
  'delta': ADePT(length=4, rank=2, table=ROWS),
  'hidden': DeepPrompt(length=4, table=ROWS),
  'inside': MAM(length=3, size=4, table=ROWS),
  'apart': InputPrompt(length=4, table=ROWS, sees_input=False),
  'fused': InputPrompt(length=4, table=ROWS),  # the kernel of attention on eight devices
  'cudnn': InputPrompt(length=4, table=ROWS),  # the one for GPUs
  'tasks': TaskPrompts(tasks=2, length=4, table=ROWS),
}
MESHES = {
  'data': (4, 2),
  'tensor': (2, 4),
  'sequence': (2, 4),
  'fully_sharded': (8, 1),
  '2d': (4, 2),
}
CONFIG = T5Config(
  vocab_size=64,
  emb_dim=32,
  num_heads=4,
  head_dim=8,
  num_encoder_layers=2,
  num_decoder_layers=2,
  mlp_dim=48,
)


@functools.lru_cache(None)
def parameters(model: PromptedT5):
  """(params, constants) of a random model; no prompt leaf is 0."""
  rng = np.random.default_rng(0)
  backbone = jax.tree.map(lambda x: 0.3 * x, tiny.random_params(CONFIG))
  rows, constants = initialise_prompt(
    model, jax.random.key(0), backbone['token_embedder']['embedding'], None
  )
  rows = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), rows)
  return {'backbone': backbone, 'prompt': rows}, constants


def packed(model: PromptedT5) -> Batch:
  """10 examples of two tasks in 16 rows, most of two examples or of none."""
  rng = np.random.default_rng(0)
  ids = lambda n: rng.integers(3, 40, n).astype(np.int32)
  tasks = ('one', 'two')
  examples = [
    Example(ids(2 + n % 5), ids(1 + n % 3), '', '', None, {}, tasks[n % 2]) for n in range(10)
  ]
  params, constants = parameters(model)
  stream = packed_stream(
    model,
    variables_of(params, constants),
    examples,
    Packing(on=True, row_length=24),
    batch_size=10,
    seed=0,
    row_multiple=16,
    features={'task_id': {'one': 0, 'two': 1}} if 'task_id' in model.prompt.depends_on else {},
  )
  batch = stream.batch(0)
  filled = (batch.encoder_segment_ids.max(1) - 1).tolist()
  assert max(filled) > 0 > min(filled)
  return jax.tree.map(jnp.asarray, batch)


def results(model: PromptedT5, place: placement.Placement | None, batch: Batch):
  """(loss, gradient, tokens, bytes of the backbone on the first device)."""
  params, constants = parameters(model)
  objective, update = CrossEntropy(model), Update(optax.sgd(1.0))
  trainable, frozen = split(params)
  state = create_state(trainable, update, seed=0)
  step = functools.partial(
    train_step, objectives=[objective], updates=[update], microbatches=2, placement=place
  )
  decode = functools.partial(greedy, model, max_len=5)
  if place:
    frozen = jax.device_put(frozen, place.shardings(frozen))
    state = jax.device_put(state, place.replicated)
    batch = jax.device_put(batch, place.row_sharding)
    step, decode = place.with_mesh(step), place.with_mesh(decode)
  (after,), (metrics,) = jax.jit(step)([state], frozen, [{}], [{}], [batch])
  gradient = jax.tree.map(
    lambda a, b: np.asarray(a - b), trainable, jax.device_get(after.trainable)
  )
  tokens = np.zeros(0)
  if batch.encoder_segment_ids is None:  # an input can be decoded, and a row of several cannot
    variables = variables_of({**frozen, **jax.device_get(after.trainable)}, constants)
    tokens = jax.jit(decode)(variables, batch.encoder_input_tokens)
  held = sum(jnp.asarray(x).addressable_shards[0].data.nbytes for x in jax.tree.leaves(frozen))
  return float(metrics['loss']), gradient, np.asarray(tokens), held


def differences(method: str, rows: str) -> dict[str, dict[str, float]]:
  """Of a method's results under each layout from those on one device."""
  model = PromptedT5(T5(CONFIG), METHODS[method])
  batch = packed(model) if rows == 'packed' else tiny.batch(rows=16)
  loss, gradient, tokens, held = results(model, None, batch)
  found = {}
  with pytest.MonkeyPatch.context() as patch:
    if method == 'cudnn':  # in float32, which the kernel itself does not take
      cudnn_in_xla.put_in_place(patch.setattr)
      cudnn_for_fused = lambda *xs, scores_dtype: cudnn.attend_cudnn(*xs)
      patch.setattr(fused, 'attend_fused', cudnn_for_fused)
    if method in ('fused', 'cudnn'):
      jax.clear_caches()  # what is traced with one kernel is not the other's
      patch.setattr(pl, 'pallas_call', functools.partial(pl.pallas_call, interpret=True))
      model = PromptedT5(T5(dataclasses.replace(CONFIG, attention='fused')), METHODS[method])
    for layout in ('data', 'sequence') if rows == 'packed' else MESHES:
      place = placement.make(MESHES[layout], layout, jax.devices())
      got = results(model, place, batch)
      largest = lambda tree: max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))
      found[layout] = {
        'loss': abs(got[0] / loss - 1),
        'gradient': largest(jax.tree.map(np.subtract, got[1], gradient)) / largest(gradient),
        'tokens': int((got[2] != tokens).sum()),
        'held': got[3] / held,
      }
  return found


def main(*names: str) -> None:
  assert jax.device_count() == 8
  rows = 'packed' if names[-1] == 'packed' else ''
  print(json.dumps({n: differences(n, rows) for n in names if n != rows}))


if __name__ == '__main__':
  main(*sys.argv[1:])
