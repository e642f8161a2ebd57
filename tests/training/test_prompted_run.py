"""The trainer on the real model: what it prints trains, and nothing else changes."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from prompt_jax.checkpoints.fingerprint import fingerprint
from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.models.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.input_prompt import InputPrompt
from prompt_jax.testing import tiny
from prompt_jax.training import losses, optim, partition
from prompt_jax.training.loop import train
from prompt_jax.training.settings import Settings

P = 5


class Stream:
  """Batches of two lengths, so that the step is compiled twice."""

  def __init__(self):
    self.position = {'next': 0}

  def restore(self, position):
    self.position = dict(position)

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


def run(model, params, folder, console=None, **settings):
  return train(
    model=model,
    backbone=params['backbone'],
    prompt=params['prompt'],
    constants={},
    stream=Stream(),
    tx=optim.adafactor(0.3),
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

  trainable, frozen = partition.split(params)
  batch = tiny.batch(4)

  def loss(trainable):
    logits, aux = model.apply({'params': partition.merge(trainable, frozen)}, batch)
    value, _ = losses.cross_entropy(logits, batch.decoder_target_tokens, batch.decoder_loss_weights)
    return value + aux

  gradient = jax.jit(jax.grad(loss))(jax.tree.map(jnp.asarray, trainable))
  receives = sum(int(jnp.sum(g != 0)) for g in jax.tree.leaves(gradient))
  assert receives == P * 32
  assert f'{receives} of {partition.count(params):,} parameters train' in console.export_text()
  moved = jax.tree.map(lambda a, b: bool(np.all(a != b)), result.trainable, trainable)
  assert all(jax.tree.leaves(moved))


def test_a_resumed_run_ends_with_the_same_bytes(model, params, tmp_path):
  run(model, params, tmp_path / 'whole')
  run(model, params, tmp_path / 'parts', steps=3)
  run(model, params, tmp_path / 'parts')
  whole, parts = ((tmp_path / n / 'prompt.safetensors').read_bytes() for n in ('whole', 'parts'))
  assert whole == parts
  assert load_prompt(tmp_path / 'parts' / 'prompt.safetensors').metadata['step'] == 6
