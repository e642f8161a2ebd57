"""LoPA: a prompt of which each input closes a part."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.prompts.base import PromptMethod, check_least, check_length, own_table
from prompt_jax.prompts.tables import Plain, linear

Array = jax.Array


class LoPA(PromptMethod):
  """P(x) = P * sigmoid(U(x) V(x)^T) (LoPA, NeurIPS 2024, arXiv:2405.15282; its authors' code).

  U(x) [P, rank] and V(x) [H, rank] are made by two networks of two layers with a GELU between,
  from the mean of the frozen encoder's states (the authors take a smaller encoder's first state).

  Parameters: a table at `encoder`; `rows_in`, `rows_out`, `columns_in`, `columns_out` {kernel,
  bias}.

  Attributes:
    length: P; the authors take 10.
    rank: of what is inside the sigmoid; the authors take 1 to 4.
    hidden: width between the two layers.
    table: how the rows are parametrised.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({'pooled'})

  length: int = 10
  rank: int = 4
  hidden: int = 256
  table: nn.Module = dataclasses.field(default_factory=Plain)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_least(self, rank=1, hidden=1)
    width = ctx.input_dims.H
    assert ctx.pooled is not None  # declared
    x = ctx.pooled.astype(jnp.float32)
    u = self._network('rows', x, self.length)
    v = self._network('columns', x, width)
    rows = own_table(self, self.table, ctx.input_stack)((self.length, width))
    gate = nn.sigmoid(jnp.einsum('bpr,bhr->bph', u, v))
    return Injections.of({ctx.input_stack: Injection(prefix=rows[None] * gate)})

  def _network(self, name: str, x: Array, count: int) -> Array:
    """[B, H] -> [B, count, rank]."""
    y = nn.gelu(linear(self.hidden, x.shape[-1], f'{name}_in')(x))
    y = linear(count * self.rank, self.hidden, f'{name}_out')(y)
    return y.reshape(-1, count, self.rank)
