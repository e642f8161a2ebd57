"""A method's own constants reach the method."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.injections import Injection, Injections
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5, variables_of
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.prompts.initialise import initialise_prompt


class Masked(PromptMethod):
  """Rows of ones, some of them switched off by a constant."""

  @nn.compact
  def __call__(self, ctx):
    mask = self.variable('constants', 'mask', jnp.ones, (3, 1)).value
    rows = self.param('prompt', nn.initializers.ones, (3, ctx.input_dims.H))
    return Injections(encoder=Injection(prefix=(rows * mask)[None]))


def test_constants_are_the_methods_own():
  cfg = T5Config(16, 8, 2, 4, 1, 1, 8)
  model = PromptedT5(T5(cfg), Masked())
  params, constants = initialise_prompt(model, jax.random.key(0), np.ones((16, 8)), None)
  constants['mask'] = constants['mask'].at[1].set(0)
  backbone = {'token_embedder': {'embedding': jnp.zeros((16, 8))}}
  variables = variables_of({'backbone': backbone, 'prompt': params}, constants)
  added = model.apply(variables, jnp.ones((1, 2), jnp.int32), method='injections')
  np.testing.assert_array_equal(added.encoder.prefix[0].sum(1), [8, 0, 8])
  assert variables_of(backbone, {})['constants'] == {}
