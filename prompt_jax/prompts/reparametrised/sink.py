"""Tables whose first rows stay as they began: an attention sink."""

import dataclasses
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.prompts.initializers import Initializer, Zeros
from prompt_jax.prompts.tables import Plain

Array = jax.Array


class Sink(nn.Module):
  """[S; P] of which S, the first `rows`, never trains: Cartridges (Eyuboglu et al. 2025,
  arXiv:2506.06266) keep the key and value of the first token, which attention falls back to.

  Of keys and values from zeros, a query gives the sink the weight of a neutral key and reads
  nothing from it: softmax with 1 more in its denominator (Miller 2023), in every head.

  Parameters: `base` (the inner table's). Constant: `sink` S [..., rows, H].

  Attributes:
    base: the table of P, `rows` shorter.
    rows: at least 1, fewer than all.
    initializer: of S.
  """

  base: nn.Module = dataclasses.field(default_factory=Plain)
  rows: int = 1
  initializer: Initializer = dataclasses.field(default_factory=Zeros)

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    *lead, p, h = shape
    if not 1 <= self.rows < p:
      raise UserError(f'Sink.rows is {self.rows}; a table of {p} rows needs 1 to {p - 1}.')
    made = lambda: self.initializer(self.make_rng('params'), (*lead, self.rows, h))
    sink = self.variable('constants', 'sink', made).value
    return jnp.concatenate([sink, self.base((*lead, p - self.rows, h))], axis=-2)
