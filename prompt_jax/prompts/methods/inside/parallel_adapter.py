"""The scaled parallel adapter: a small network beside the mlp of every layer."""

from collections.abc import Sequence

import flax.linen as nn

from prompt_jax.injections import Context, Dims, Injections, Inside, InsideEdit
from prompt_jax.prompts.base import PromptMethod, check_least
from prompt_jax.prompts.methods.inside.adapter import Network, weights
from prompt_jax.prompts.methods.inside.places import in_stacks


class ParallelAdapter(PromptMethod):
  """mlp(x) + scale (W_up relu(W_down x + b) + c) (He et al. 2022, arXiv:2110.04366, section 4.5).

  x is what the mlp reads. W_up, b and c start at 0, W_down as torch's linear layer.

  Parameters: for `encoder` and `decoder`, as `encoder_mlp_down` [L, H, size],
  `encoder_mlp_down_bias` [L, size], `encoder_mlp_up` [L, size, H], `encoder_mlp_up_bias` [L, H].

  Attributes:
    size: width of the middle; the paper's 512.
    scale: the paper's 4.
  """

  size: int = 512
  scale: float = 4.0

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_least(self, size=1)
    return in_stacks(ctx, self._edits, ('mlp',), cross=False)

  def _edits(self, stack: str, dims: Dims, points: Sequence[str]) -> Inside:
    network = Network('relu', of_output=False, scale=self.scale)
    return tuple(
      InsideEdit(weights(self, f'{stack}_{point}', dims, self.size), point, network)
      for point in points
    )
