"""Prompts of many kinds on one random model, in memory and as files."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from prompt_jax.checkpoints.backbone import Backbone, load_backbone, save_backbone
from prompt_jax.checkpoints.prompt_file import Prompt, describe_method, save_prompt
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.loading import Tuned
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5, variables_of
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.testing import tiny

CONFIG = T5Config(384, 32, 2, 8, 2, 2, 48)
YES_NO, MANY = ('yes', 'no'), ('a', 'b', 'ab', 'long one', 'b a')


class Everywhere(PromptMethod):
  """Rows and keys in both stacks and keys in cross attention, of unlike lengths."""

  length: int = 3

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    n, draw = self.length, nn.initializers.normal(1.0)
    rows = lambda name, n: self.param(name, draw, (1, n, ctx.stacks['encoder'].H))
    kv = lambda name, d, n: self.param(name, draw, (d.L, 2, 1, n, d.N, d.D))
    encoder, decoder = ctx.stacks['encoder'], ctx.stacks['decoder']
    return Injections(
      encoder=Injection(prefix=rows('rows', n), kv=kv('kv', encoder, n + 1), kv_bias='shifted'),
      decoder=Injection(
        prefix=rows('own', n + 2), kv=kv('own_kv', decoder, n), placement='after_bos'
      ),
      cross=Injection(kv=kv('cross_kv', decoder, 2 * n)),
    )


@pytest.fixture(scope='session')
def folder(tmp_path_factory) -> str:
  """A random byte-level model with sharp logits, so that rows differ and end at other times."""
  params = jax.tree.map(lambda x: 0.5 * x, tiny.random_params(CONFIG))
  path = tmp_path_factory.mktemp('serving') / 'bytes'
  save_backbone(path, name='bytes', config=CONFIG, params=params, vocabulary=ByteVocabulary())
  return str(path)


@pytest.fixture(scope='session')
def backbone(folder) -> Backbone:
  return load_backbone(folder)


def parameters(method: PromptMethod, seed: int, sizes):
  """Normal values in place of the method's first ones."""
  from prompt_jax.prompts.base import first_values

  _, variables = first_values(method, jax.random.key(seed), sizes)
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), variables['params'])


@pytest.fixture(scope='session')
def tuned(backbone):
  """(method, seed, labels, most tokens of an answer) -> the prompt on the model."""

  def make(method, seed=0, labels=None, targets=12) -> Tuned:
    params = {'backbone': backbone.params, 'prompt': parameters(method, seed, CONFIG.sizes)}
    metadata = {'labels': labels and list(labels), 'input_length': 24, 'target_length': targets}
    model = PromptedT5(T5(backbone.config), method)
    return Tuned(model, jax.device_put(variables_of(params, {})), backbone, metadata)

  return make


@pytest.fixture(scope='session')
def write(backbone, folder):
  """Writes a prompt file."""

  def to(path, method, seed=0, labels=None) -> str:
    metadata = {
      'base_model': backbone.name, 'fingerprint': backbone.fingerprint, 'width': CONFIG.emb_dim,
      'method': type(method).__name__, 'method_config': describe_method(method), 'model': folder,
      'labels': labels and list(labels), 'input_length': 24, 'target_length': 12,
    }  # fmt: skip
    save_prompt(path, Prompt(parameters(method, seed, CONFIG.sizes), {}, metadata))
    return str(path)

  return to
