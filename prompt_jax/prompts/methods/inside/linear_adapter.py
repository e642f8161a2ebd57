"""Linear adapters: a low-rank change of what attention and mlp give, which weights can take up."""

from collections.abc import Sequence

import flax.linen as nn
import jax

from prompt_jax.injections import Context, Dims, Injections, Inside, InsideEdit
from prompt_jax.prompts.base import PromptMethod, check_least
from prompt_jax.prompts.methods.inside.places import check_points, in_stacks
from prompt_jax.prompts.tables import symmetric_uniform

Array = jax.Array
KNOWN = ('attention', 'mlp')


class LinearAdapter(PromptMethod):
  """y + W_2 W_1 y of what attention and mlp give to the residual stream (LiST, Wang et al. 2022,
  arXiv:2110.06274), without an activation or biases.

  The frozen matrix W before it and the adapter are one matrix, (1 + W_2 W_1) W. W_2 starts at 0,
  W_1 as torch's linear layer: at first the model is the frozen one.

  Parameters: for `encoder`, `decoder` and `cross` and each point, such as mlp: `encoder_mlp_down`
  W_1^T [L, H, size], `encoder_mlp_up` W_2^T [L, size, H].

  Attributes:
    size: width of the middle; the authors take 128.
    points: "attention" and "mlp", or one of them. With attention, cross attention has adapters too.
  """

  size: int = 128
  points: Sequence[str] = KNOWN

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_points(self, KNOWN)
    check_least(self, size=1)
    return in_stacks(ctx, self._edits, self.points, cross=True)

  def _edits(self, stack: str, dims: Dims, points: Sequence[str]) -> Inside:
    start, edits = symmetric_uniform(dims.H**-0.5), []
    for point in points:
      down = self.param(f'{stack}_{point}_down', start, (dims.L, dims.H, self.size))
      zeros = nn.initializers.zeros
      up = self.param(f'{stack}_{point}_up', zeros, (dims.L, self.size, dims.H))
      edits.append(InsideEdit((down, up), point, change_output))
    return tuple(edits)


def change_output(theta: tuple[Array, Array], y: Array, x: Array) -> Array:
  """`InsideEdit.fn`: y + y W_1^T W_2^T."""
  del x
  down, up = (matrix.astype(y.dtype) for matrix in theta)
  return y + (y @ down) @ up
