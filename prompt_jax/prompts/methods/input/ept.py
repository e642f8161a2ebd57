"""EPT: a short prompt that reads a low-rank change of the input, in several weighted spaces."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.prompts.base import check_least
from prompt_jax.prompts.methods.input.dept import DePT
from prompt_jax.prompts.tables import symmetric_uniform


class EPT(DePT):
  """X' = [sum_j g_j F W_j; X + C], F = P + softmax(P C^T / sqrt(H)) C, g = softmax(mean(F) W_g)
  (EPT, AAAI 2025, arXiv:2405.11464).

  C = s A B is the change of DePT, for all positions. No code is public and the sizes of the
  matrices are ours: W_j are H by H and start near the identity, W_g starts at 0, so that with the B
  of DePT, also 0, the method begins near prompt tuning. Spaces that were equal would stay so.

  Parameters: those of DePT; `spaces` W [spaces, H, H], `gate` W_g [H, spaces]; `query`, `key`,
  `value` [H, H], from the identity, where `projected`.

  Attributes:
    spaces: how many.
    projected: whether the fusion has matrices for P, and for C as keys and as values.
    temperature: divides mean(F) W_g.
  """

  input_length: int = 256
  spaces: int = 4
  projected: bool = False
  temperature: float = 1.0

  def _rows(self, rows: jax.Array, change: jax.Array) -> jax.Array:
    check_least(self, spaces=1)
    if self.temperature <= 0:
      raise UserError(f'EPT.temperature is {self.temperature}; it must be above 0.')
    width = rows.shape[-1]
    eye = lambda key, shape: jnp.broadcast_to(jnp.eye(width), shape)
    queries, keys, values = rows, change, change
    if self.projected:
      query, key, value = (self.param(n, eye, (width, width)) for n in ('query', 'key', 'value'))
      queries, keys, values = rows @ query, change @ key, change @ value
    fused = rows + nn.softmax(queries @ keys.T * width**-0.5) @ values
    gate = self.param('gate', nn.initializers.zeros, (width, self.spaces))
    shares = nn.softmax(jnp.mean(fused, 0) @ gate / self.temperature)
    apart = symmetric_uniform(0.1 * width**-0.5)
    near = lambda key, shape: eye(key, shape) + apart(key, shape)
    matrices = self.param('spaces', near, (self.spaces, width, width))
    found: jax.Array = jnp.einsum('j,ph,jhk->pk', shares, fused, matrices)
    return found
