"""Tiny models of every shape, and prompts for them, as files."""

import functools
import pathlib

import flax.linen as nn
import jax
import numpy as np

from prompt_jax.checkpoints.backbone import (
  embedded_folder,
  fingerprint,
  load_backbone,
  save_backbone,
)
from prompt_jax.checkpoints.prompt_file import Prompt, describe_method, save_prompt
from prompt_jax.data.vocabulary import (
  ByteVocabulary,
  SentencePieceVocabulary,
  Vocabulary,
  load_vocabulary,
)
from prompt_jax.injections import Injection, Injections
from prompt_jax.models.t5.config import T5Config
from prompt_jax.prompts.base import PromptMethod, first_values
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.adept import ADePT
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.inside.lora import LoRA
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.testing.tiny import random_params

SHAPES = {
  't5_1_0': {'mlp_activations': ('relu',), 'tied_logits': True},
  't5_1_1': {},
  'gated_relu': {'mlp_activations': ('relu', 'linear')},
  'mt5': {},
  'byt5': {},
  'umt5': {'relpos_per_layer': True},
}
WIDTH = 32


class LongTexts(PromptMethod):
  """Rows that are larger for long texts: it compares a length, which a free size has not."""

  depends_on = frozenset({'mask'})
  length: int = 2

  @nn.compact
  def __call__(self, ctx):
    shape = (1, self.length, ctx.input_dims.H)
    rows = self.param('rows', nn.initializers.normal(), shape)
    return Injections(encoder=Injection(prefix=rows * (2 if ctx.mask.shape[1] > 8 else 1)))


def config(shape: str, rows: int) -> T5Config:
  """Keys narrower (N * D = 24) than the model, and stacks of different depth."""
  return T5Config(rows, WIDTH, 3, 8, 2, 1, 48, **SHAPES[shape])


def words(shape: str, folder: pathlib.Path) -> Vocabulary:
  if shape == 'byt5':
    return ByteVocabulary()
  if shape != 'mt5':
    return load_vocabulary(embedded_folder())
  path = folder / 'own_sentinels.model'
  path.write_bytes(load_vocabulary(embedded_folder()).model())
  return SentencePieceVocabulary(path, 0)


@functools.cache
def params(shape: str, rows: int):
  """Values so small that no softmax has all its mass on one token; norms around one."""
  found = jax.tree.map(lambda x: 0.15 * x, random_params(config(shape, rows)))
  return jax.tree_util.tree_map_with_path(
    lambda path, x: 1 + 0.2 * x if path[-1].key == 'scale' else x, found
  )


def ending(params):
  """Parameters with which the end of the sequence is by far the most probable token."""
  kernel = params['decoder']['logits_dense']['kernel'].copy()
  kernel[:, 1] = 0.5 * params['decoder']['decoder_norm']['scale']
  scale = np.abs(params['decoder']['decoder_norm']['scale'])
  layers = {**params['decoder'], 'decoder_norm': {'scale': scale}}
  return {**params, 'decoder': {**layers, 'logits_dense': {'kernel': kernel}}}


def model(shape: str, folder: pathlib.Path, changed=lambda params: params) -> str:
  """A model folder; its table has rows without a piece."""
  folder.mkdir(parents=True, exist_ok=True)
  known = words(shape, folder)
  rows = known.size + (28 if shape != 'byt5' else 0)
  place = folder / 'model'
  save_backbone(
    place,
    name=shape,
    config=config(shape, rows),
    params=changed(params(shape, rows)),
    vocabulary=known,
  )
  return str(place)


def kinds() -> dict[str, PromptMethod]:
  """By name: methods that inject in every way, of unequal lengths; a name before "_" is a group."""
  return {
    'input_a': InputPrompt(length=5),
    'input_b': InputPrompt(length=2),
    'prefix_a': PrefixTuning(length=4),
    'prefix_b': PrefixTuning(length=2),
    'deep': DeepPrompt(length=3),
    'lora': LoRA(rank=2),
    'unseeing': InputPrompt(length=3, sees_input=False),
    'adept': ADePT(length=3),
  }


def moved(method: PromptMethod, base: str, seed: int = 0):
  """Parameters of a method, each a little away from where it starts."""
  sizes = load_backbone(base, 'float32').config.sizes
  rng = np.random.default_rng(seed)
  params = first_values(method, jax.random.key(seed), sizes)[1]['params']
  return jax.tree.map(lambda x: np.asarray(x + 0.3 * rng.normal(size=x.shape), np.float32), params)


def prompt(
  path: pathlib.Path, base: str, length: int, *, seed: int = 0, method=None, tree=None, **metadata
) -> str:
  """A prompt file of that many rows on a model folder."""
  backbone = load_backbone(base, 'float32')
  rows = np.random.default_rng(seed).normal(size=(length, WIDTH)).astype(np.float32)
  method = method or InputPrompt(length=length)
  facts = {
    'base_model': backbone.name,
    'fingerprint': fingerprint(backbone.params),
    'model': base,
    'method': type(method).__name__,
    'method_config': describe_method(method),
    'width': WIDTH,
    'input_length': 64,
    'target_length': 8,
    **metadata,
  }
  save_prompt(path, Prompt({'encoder': {'prompt': rows}} if tree is None else tree, {}, facts))
  return str(path)
