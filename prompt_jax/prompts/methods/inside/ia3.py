"""(IA)^3: keys, values and the mlp's hidden units times a vector."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from prompt_jax.injections import Context, Dims, Injections, Inside
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.prompts.methods.inside.places import check_points, in_stacks, vectors

Array = jax.Array


class IA3(PromptMethod):
  """l * y for keys, values and hidden units y of the mlp (Liu et al. 2022, arXiv:2205.05638,
  section 3.3). The vectors l start at 1: at first the model is the frozen one.

  Parameters: for `encoder`, `decoder` and `cross` and each point, such as value: `encoder_value`
  [L, outputs].

  Attributes:
    points: what is multiplied; also "query", "heads", "attention" and "mlp".
  """

  points: Sequence[str] = ('key', 'value', 'mlp_hidden')

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_points(self)
    return in_stacks(ctx, self._edits, self.points, cross=True)

  def _edits(self, stack: str, dims: Dims, points: Sequence[str]) -> Inside:
    return vectors(self, stack, dims, points, nn.initializers.ones, multiply)


def multiply(theta: Array, y: Array, x: Array) -> Array:
  """`InsideEdit.fn`: theta [C] times y [B, S, C]."""
  del x
  return theta.astype(y.dtype)[None, None] * y
