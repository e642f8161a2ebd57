"""BitFit: trained biases, and nothing else."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from prompt_jax.injections import Context, Dims, Injections, Inside
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.prompts.methods.inside.places import check_points, in_stacks, vectors

Array = jax.Array


class BitFit(PromptMethod):
  """y + b (BitFit, Ben Zaken et al. 2022, arXiv:2106.10199), b from 0.

  A T5 has no biases; these are added behind its matrices. Those before the activation of the mlp
  and of the layer norms, which the paper trains too, are not among them.

  Parameters: for `encoder`, `decoder` and `cross` and each point, such as value: `encoder_value`
  [L, outputs].

  Attributes:
    points: where there is a bias. "heads" is left out: what a bias there can do, one at "value"
      does. One of the keys alone changes nothing, since all keys then gain the same.
  """

  points: Sequence[str] = ('query', 'value', 'attention', 'mlp')

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_points(self)
    return in_stacks(ctx, self._edits, self.points, cross=True)

  def _edits(self, stack: str, dims: Dims, points: Sequence[str]) -> Inside:
    return vectors(self, stack, dims, points, nn.initializers.zeros, add)


def add(theta: Array, y: Array, x: Array) -> Array:
  """`InsideEdit.fn`: theta [C] plus y [B, S, C]."""
  del x
  return theta.astype(y.dtype)[None, None] + y
