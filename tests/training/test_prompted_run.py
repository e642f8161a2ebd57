"""The trainer on the real model: what it prints trains, and nothing else changes."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from prompt_jax.checkpoints.backbone import fingerprint
from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.data.example import Example
from prompt_jax.data.packing import PackedStream, Slots
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.testing import tiny
from prompt_jax.training import losses, objective, optim
from prompt_jax.training.loop import train
from prompt_jax.training.objective import CrossEntropy
from prompt_jax.training.records import read_records
from prompt_jax.training.settings import Settings
from tests.shared import mentions

P = 5


class Stream:
  """Batches of two lengths, so that the step is compiled twice."""

  def __init__(self):
    self.position = {'next': 0}

  def restore(self, position):
    self.position = dict(position)

  def upcoming_shapes(self, count):
    return []

  def __iter__(self):
    while True:
      n = self.position['next']
      self.position = {'next': n + 1}
      yield jax.tree.map(np.asarray, tiny.batch(4, pad=4 * (n % 2), seed=n))


@pytest.fixture(scope='module')
def model():
  return PromptedT5(backbone=T5(tiny.config()), prompt=InputPrompt(length=P))


@pytest.fixture(scope='module')
def params(model):
  return jax.jit(model.init)(jax.random.key(0), tiny.batch())['params']


def packed_stream():
  """Batches of 4 of 10 examples, the third one of an epoch with 2."""
  rng = np.random.default_rng(0)
  ids = lambda n: np.append(rng.integers(3, 40, n - 1), 1).astype(np.int32)
  examples = [Example(ids(2 + i % 6), ids(2 + i % 2), '', '', None, {}, '') for i in range(10)]
  return PackedStream(examples, 4, row_length=24, encoder=Slots(P))


def run(model, params, folder, console=None, stream=None, **settings):
  return train(
    objective=CrossEntropy(model),
    update=optim.Update(optim.adafactor(0.3)),
    backbone=params['backbone'],
    prompt=params['prompt'],
    constants={},
    stream=stream or Stream(),
    settings=Settings(**{'steps': 6, 'save_every': 2, **settings}),
    folder=folder,
    metadata={
      'base_model': 'tiny',
      'fingerprint': fingerprint(params['backbone']),
      'method': 'InputPrompt',
      'width': 32,
    },
    console=console,
  )


def test_what_is_printed_trains_and_the_rest_keeps_its_bytes(model, params, tmp_path):
  before = jax.tree.map(lambda x: np.array(x, copy=True), params)
  console = Console(record=True, width=120, file=io.StringIO())
  result = run(model, params, tmp_path, console)
  jax.tree.map(np.testing.assert_array_equal, before, params)

  trainable, frozen = objective.split(params)
  batch = tiny.batch(4)

  def loss(trainable):
    logits, aux = model.apply({'params': objective.merge(trainable, frozen)}, batch)
    value, _ = losses.cross_entropy(logits, batch.decoder_target_tokens, batch.decoder_loss_weights)
    return value + aux

  gradient = jax.jit(jax.grad(loss))(jax.tree.map(jnp.asarray, trainable))
  receives = sum(int(jnp.sum(g != 0)) for g in jax.tree.leaves(gradient))
  assert receives == P * 32
  assert mentions(console.export_text(), str(receives), f'{objective.count(params):,}')
  moved = jax.tree.map(lambda a, b: bool(np.all(a != b)), result.trainable, trainable)
  assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize('stream', [Stream, packed_stream])
def test_a_resumed_run_ends_with_the_same_bytes(model, params, tmp_path, stream):
  run(model, params, tmp_path / 'whole', stream=stream())
  run(model, params, tmp_path / 'parts', stream=stream(), steps=2)
  run(model, params, tmp_path / 'parts', stream=stream())
  whole, parts = ((tmp_path / n / 'prompt.safetensors').read_bytes() for n in ('whole', 'parts'))
  assert whole == parts
  assert load_prompt(tmp_path / 'parts' / 'prompt.safetensors').metadata['step'] == 6


def test_records_count_examples_and_not_rows(model, params, tmp_path):
  run(model, params, tmp_path, stream=packed_stream(), steps=3, log_every=1)
  records = [r for r in read_records(tmp_path / 'metrics.jsonl') if r['kind'] == 'train']
  assert [r['examples'] for r in records] == [4, 4, 2]
  assert sum(r['tokens'] for r in records) == 10 * 2.5
