"""Prompts in a random subspace: a few numbers move all rows."""

import dataclasses
import math
from collections.abc import Sequence

import flax.linen as nn
import jax

from prompt_jax.errors import UserError
from prompt_jax.prompts.initializers import Initializer, SampledVocabulary

Array = jax.Array


class RandomSubspace(nn.Module):
  """vec(P) = vec(P_0) + A z, P_0 and A never train (intrinsic dimension, arXiv:2012.13255).

  z has `size` numbers and starts at 0, A ~ N(0, 1 / size): a step of z moves each number of P about
  as far. Black-Box Tuning (arXiv:2201.03514) searches in such a space without gradients.

  A is kept with the prompt, 4 size P H bytes (77 MB for 50 rows of T5 base); once exported as rows,
  only these are.

  Parameters: `point` z [size]. Constants: `origin` P_0 [..., P, H], `directions` A
  [size, ..., P, H].

  Attributes:
    size: dimensions of the subspace; Black-Box Tuning has 500.
    initializer: of P_0.
  """

  size: int = 500
  initializer: Initializer = dataclasses.field(default_factory=SampledVocabulary)

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    whole = math.prod(shape)
    if not 1 <= self.size <= whole:
      raise UserError(
        f'RandomSubspace.size is {self.size}; a table of {whole} numbers needs 1 to {whole}.'
      )
    origin = self.variable(
      'constants', 'origin', lambda: self.initializer(self.make_rng('params'), tuple(shape))
    ).value
    start = nn.initializers.normal(self.size**-0.5)
    directions = self.variable(
      'constants', 'directions', lambda: start(self.make_rng('params'), (self.size, *shape))
    ).value
    point = self.param('point', nn.initializers.zeros, (self.size,))
    return origin + (point @ directions.reshape(self.size, -1)).reshape(shape)
