"""SuperPos-Prompt: every row a combination of the same embeddings of the vocabulary."""

import dataclasses
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.prompts.base import check_least
from prompt_jax.prompts.initializers import Initializer, Normal, SampledVocabulary
from prompt_jax.prompts.tables import free

Array = jax.Array


class SuperPos(nn.Module):
  """p_i = w_i (E + D_i) (SuperPos-Prompt, arXiv:2406.05279), without a softmax over w_i.

  E are `size` embeddings that all rows share and that never train. How w starts is ours: from
  N(0, 1/size), so that rows are about as long as embeddings.

  Parameters: `weights` w [..., P, size], `change` D [..., P, size, H] from 0. Constant: `basis` E
  [size, H].

  Attributes:
    size: number of embeddings; more than the paper's 128 gained nothing there.
    light: without D, as the paper advises for large models: P * size numbers train.
    initializer: of E.
  """

  size: int = 128
  light: bool = False
  initializer: Initializer = dataclasses.field(default_factory=SampledVocabulary)

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    check_least(self, size=1)
    *lead, p, h = shape
    weights = free(self, 'weights', Normal(1 / math.sqrt(self.size)), (*lead, p, self.size))
    basis = self.variable(
      'constants',
      'basis',
      lambda: self.initializer(self.make_rng('params'), (self.size, h)),
    ).value
    rows = weights @ basis
    if self.light:
      return rows
    change = self.param('change', nn.initializers.zeros, (*lead, p, self.size, h))
    return rows + jnp.einsum('...m,...mh->...h', weights, change)
