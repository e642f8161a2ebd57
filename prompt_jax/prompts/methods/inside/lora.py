"""LoRA: a low-rank change of the matrices of attention."""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax

from prompt_jax.injections import Context, Dims, Injections, Inside, InsideEdit
from prompt_jax.prompts.base import PromptMethod, check_least
from prompt_jax.prompts.methods.inside.places import check_points, in_stacks, widths
from prompt_jax.prompts.tables import symmetric_uniform

Array = jax.Array
KNOWN = ('query', 'key', 'value', 'attention')


class LoRA(PromptMethod):
  """W x + (alpha / rank) B A x (LoRA, Hu et al. 2022, arXiv:2106.09685, equation 3).

  B starts at 0, A as torch's kaiming_uniform(a=sqrt(5)) on a [rank, inputs] array: at first the
  model is the frozen one. There is no dropout of x.

  Parameters: for `encoder`, `decoder` and `cross` and each point, such as query:
  `encoder_query_down` A^T [L, inputs, rank] and `encoder_query_up` B^T [L, rank, outputs].

  Attributes:
    rank: of the change.
    alpha: see above; PEFT's default is 8, and so is its rank.
    points: the matrices: of "query", "key" and "value", and the output matrix, "attention". The
      paper, and PEFT for T5, take query and value.
    cross: whether the decoder's cross attention is changed too.
  """

  rank: int = 8
  alpha: float = 8.0
  points: Sequence[str] = ('query', 'value')
  cross: bool = True

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_points(self, KNOWN)
    check_least(self, rank=1)
    return in_stacks(ctx, self._edits, self.points, self.cross)

  def _edits(self, stack: str, dims: Dims, points: Sequence[str]) -> Inside:
    change, edits = LowRankChange(self.alpha / self.rank), []
    for point in points:
      outputs, inputs = widths(point, dims)
      start = symmetric_uniform(inputs**-0.5)
      down = self.param(f'{stack}_{point}_down', start, (dims.L, inputs, self.rank))
      zeros = nn.initializers.zeros
      up = self.param(f'{stack}_{point}_up', zeros, (dims.L, self.rank, outputs))
      edits.append(InsideEdit((down, up), point, change))
    return tuple(edits)


@dataclasses.dataclass(frozen=True)
class LowRankChange:
  """`InsideEdit.fn`: y + scale x A^T B^T."""

  scale: float

  def __call__(self, theta: tuple[Array, Array], y: Array, x: Array) -> Array:
    down, up = (matrix.astype(x.dtype) for matrix in theta)
    return y + self.scale * ((x @ down) @ up)
