"""LoPT-2: a low-rank function of rows that stay."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.prompts.base import check_choices, check_least
from prompt_jax.prompts.initializers import Initializer, SampledVocabulary
from prompt_jax.prompts.tables import symmetric_uniform

Array = jax.Array
ACTIVATIONS = {'sigmoid': nn.sigmoid, 'tanh': jnp.tanh, 'relu': nn.relu}


class LoPT2(nn.Module):
  """act(P_0 U) V, P_0 never trains (LoPT-2, arXiv:2406.19486): 2 rank H numbers for any P.

  The paper leaves open how it starts. Here U is as torch's linear layers, and V is what brings the
  rows nearest to P_0, in least squares: with random V they would not be of the scale of embeddings.

  Parameters: `left` U [H, rank], `right` V [..., rank, H]. Constant: `origin` P_0 [..., P, H].

  Attributes:
    rank: of U and V; the paper's best are 2 to 5, with 20 rows.
    activation: "sigmoid", "tanh" or "relu".
    initializer: of P_0.
  """

  rank: int = 5
  activation: Literal['sigmoid', 'tanh', 'relu'] = 'sigmoid'
  initializer: Initializer = dataclasses.field(default_factory=SampledVocabulary)

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    check_least(self, rank=1)
    check_choices(self, activation=ACTIVATIONS)
    width = shape[-1]
    origin = self.variable(
      'constants', 'origin', lambda: self.initializer(self.make_rng('params'), tuple(shape))
    ).value
    left = self.param('left', symmetric_uniform(width**-0.5), (width, self.rank))
    hidden = ACTIVATIONS[self.activation](origin @ left)
    right = self.param('right', lambda key: jnp.linalg.pinv(hidden) @ origin)
    return hidden @ right
