"""IAPT: in every layer the rows are made anew of the states of the tokens."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import UserError
from prompt_jax.injections import Context, Injection, Injections, LayerEdit, Layout
from prompt_jax.prompts.base import PromptMethod, check_least, check_length, own_table
from prompt_jax.prompts.tables import Plain, symmetric_uniform

Array = jax.Array
# GeLU from -4 to 4 to 0.003, by least squares: of z^0 to z^5, and of z^1 to z^4.
NUMERATOR = (-0.00136468, 0.5, 0.40842039, 0.10148279, 0.00439393, -0.00082544)
DENOMINATOR = (0.0, 0.20296239, 0.0, -0.00165095)


class IAPT(PromptMethod):
  """P_l = reshape(W_up R_l(W_down sum_t a_t x_t)) + B in layer l, a = softmax_t(w . x_t) over the
  tokens of an example (IAPT, ACL 2024, arXiv:2405.18203).

  R_l(z) = sum_i a_i z^i / (1 + |sum_j b_j z^j|) is learned for each layer and starts as GeLU; all
  else is one for all layers. No code is public: that x_t are divided by their root mean square, the
  degrees of R, and rows B from the vocabulary beside what is generated are ours.

  Parameters: a table at `encoder` B [P, H]; `query` w [H]; `down` [H, hidden], `up` [hidden, P, H];
  `numerator` a [L, 6], `denominator` b [L, 4].

  Attributes:
    length: P, in each layer; the paper's 4.
    hidden: between W_down and W_up.
    table: how B is parametrised.
  """

  length: int = 4
  hidden: int = 64
  table: nn.Module = dataclasses.field(default_factory=Plain)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_least(self, hidden=1)
    if ctx.input_stack != 'encoder':  # a causal stack has not read the input when rows are made
      raise UserError('IAPT needs a model with an encoder; take DeepPrompt for this one.')
    layers, width = ctx.input_dims.L, ctx.input_dims.H
    rows = own_table(self, self.table, ctx.input_stack)((self.length, width))
    start = lambda inputs: symmetric_uniform(inputs**-0.5)
    every = lambda x: jnp.broadcast_to(x, (layers, *x.shape))
    of_layers = lambda first: lambda key: jnp.tile(np.asarray([first], np.float32), (layers, 1))
    theta = {
      'query': every(self.param('query', nn.initializers.zeros, (width,))),
      'down': every(self.param('down', start(width), (width, self.hidden))),
      'up': every(self.param('up', start(self.hidden), (self.hidden, self.length, width))),
      'rows': every(rows),
      'numerator': self.param('numerator', of_layers(NUMERATOR)),
      'denominator': self.param('denominator', of_layers(DENOMINATOR)),
    }
    edit = LayerEdit(theta=theta, fn=generated)
    return Injections.of({ctx.input_stack: Injection(prefix=rows[None], hidden=edit)})


def generated(theta: dict[str, Array], x: Array, layout: Layout) -> Array:
  """x [B, S, H] with the rows of one layer at its prompt rows, of each packed example its own."""
  assert layout.slot is not None  # the rows stand among the tokens
  slot = jnp.broadcast_to(layout.slot, x.shape[:2])
  h = x.astype(jnp.float32)
  h = h * jax.lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + 1e-6)
  seen = (layout.mask & (slot < 0))[:, None]  # [B, 1|S, S]
  if layout.segments is not None:
    seen = seen & (layout.segments[:, :, None] == layout.segments[:, None, :])
  scores = jnp.where(seen, (h @ theta['query'])[:, None], -1e9)
  z = nn.softmax(scores) @ h @ theta['down']
  z = rational(z, theta['numerator'], theta['denominator'])
  rows = jnp.einsum('bqr,rph->bqph', z, theta['up']) + theta['rows'][None, None]
  rows = jnp.broadcast_to(rows, (*x.shape[:2], *rows.shape[2:]))
  own = jnp.take_along_axis(rows, jnp.maximum(slot, 0)[..., None, None], axis=2)[:, :, 0]
  return jnp.where((slot >= 0)[..., None], own.astype(x.dtype), x)


def rational(z: Array, numerator: Array, denominator: Array) -> Array:
  """sum_i numerator[i] z^i / (1 + |sum_j denominator[j] z^(j + 1)|); it divides by at least 1."""
  over = jnp.polyval(numerator[::-1], z)
  under = jnp.polyval(jnp.concatenate([denominator[::-1], jnp.zeros(1)]), z)
  return over / (1 + jnp.abs(under))
