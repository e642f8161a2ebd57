"""Adapters: small networks behind the attention and the mlp of every layer."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax

from prompt_jax.injections import Context, Dims, Injections, Inside, InsideEdit
from prompt_jax.prompts.base import PromptMethod, check_choices, check_least
from prompt_jax.prompts.methods.inside.places import check_points, in_stacks
from prompt_jax.prompts.tables import ACTIVATIONS, symmetric_uniform

Array = jax.Array
KNOWN = ('attention', 'mlp')


class Adapter(PromptMethod):
  """y + W_up f(W_down y + b) + c of what attention and mlp give to the residual stream (Houlsby et
  al. 2019, arXiv:1902.00751, section 2.1). `points=("mlp",)` is the placement of Pfeiffer et al.
  2021 (arXiv:2005.00247).

  W_up, b and c start at 0, W_down as torch's linear layer: at first the model is the frozen one.
  Norms of the model do not train.

  Parameters: for `encoder`, `decoder` and `cross` and each point, such as mlp: `encoder_mlp_down`
  [L, H, size], `encoder_mlp_down_bias` [L, size], `encoder_mlp_up` [L, size, H],
  `encoder_mlp_up_bias` [L, H].

  Attributes:
    size: width of the middle.
    activation: f, "relu" or "tanh".
    points: "attention" and "mlp", or one of them. With attention, cross attention has adapters too.
  """

  size: int = 64
  activation: Literal['relu', 'tanh'] = 'relu'
  points: Sequence[str] = KNOWN

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_points(self, KNOWN)
    check_least(self, size=1)
    check_choices(self, activation=ACTIVATIONS)
    return in_stacks(ctx, self._edits, self.points, cross=True)

  def _edits(self, stack: str, dims: Dims, points: Sequence[str]) -> Inside:
    network = Network(self.activation, of_output=True)
    return tuple(
      InsideEdit(weights(self, f'{stack}_{point}', dims, self.size), point, network)
      for point in points
    )


def weights(method: nn.Module, name: str, dims: Dims, size: int) -> dict[str, Array]:
  """The parameters of the networks of all layers, which start without effect."""
  start, zeros = symmetric_uniform(dims.H**-0.5), nn.initializers.zeros
  shapes = {
    'down': (start, (dims.L, dims.H, size)),
    'down_bias': (zeros, (dims.L, size)),
    'up': (zeros, (dims.L, size, dims.H)),
    'up_bias': (zeros, (dims.L, dims.H)),
  }
  return {part: method.param(f'{name}_{part}', *made) for part, made in shapes.items()}


@dataclasses.dataclass(frozen=True)
class Network:
  """`InsideEdit.fn`: y + scale (W_up f(W_down z + b) + c), z = y (`of_output`) or x."""

  activation: str
  of_output: bool
  scale: float = 1.0

  def __call__(self, theta: dict[str, Array], y: Array, x: Array) -> Array:
    z = y if self.of_output else x
    p = {name: value.astype(z.dtype) for name, value in theta.items()}
    h = ACTIVATIONS[self.activation](z @ p['down'] + p['down_bias'][None, None])
    return y + self.scale * (h @ p['up'] + p['up_bias'][None, None])
