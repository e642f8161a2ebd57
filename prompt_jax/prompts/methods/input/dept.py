"""DePT: a short prompt, and a low-rank change of the embedding at every position."""

import dataclasses
import math
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.prompts.base import PromptMethod, check_least, check_length, own_table
from prompt_jax.prompts.tables import Plain, symmetric_uniform


class DePT(PromptMethod):
  """X' = [P; X + s A B], row t of A for position t (DePT, ICLR 2024, arXiv:2309.05173).

  s = alpha / sqrt(rank) with alpha 8 is in the authors' code and not in the paper. B starts at 0:
  at first the method is prompt tuning. A starts as torch's kaiming_uniform(a=sqrt(5)) on a
  [positions, rank] array, U(-1/sqrt(rank), 1/sqrt(rank)). Padding is not changed, unlike there.

  Parameters: a table at `encoder`; `positions` A [input_length, rank], `columns` B [rank, H].
  The authors train the prompt at 0.3 to 0.4 and A and B at 1e-4 to 5e-3.

  Attributes:
    length: P; the authors take 60 for T5 base, which with rank 30 and 256 positions is about as
      many numbers as 100 plain rows.
    rank: of A B.
    input_length: positions that have a row of A: the longest input, padding to a full row included.
    alpha: see above.
    table: of the prompt rows.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({'mask'})

  length: int = 60
  rank: int = 30
  input_length: int = 512
  alpha: float = 8.0
  table: nn.Module = dataclasses.field(default_factory=Plain)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_least(self, rank=1)
    width = ctx.input_dims.H
    rows = own_table(self, self.table, ctx.input_stack)((self.length, width))
    change = self._change(width)
    rows, delta = self._rows(rows, change), self._delta(ctx, change)
    return Injections.of({ctx.input_stack: Injection(prefix=rows[None], delta=delta)})

  def _rows(self, rows: jax.Array, change: jax.Array) -> jax.Array:
    """The prompt, made of the table's rows [P, H]."""
    del change
    return rows

  def _change(self, width: int) -> jax.Array:
    """s A B, [input_length, H]."""
    start = symmetric_uniform(self.rank**-0.5)
    a = self.param('positions', start, (self.input_length, self.rank))
    b = self.param('columns', nn.initializers.zeros, (self.rank, width))
    return self.alpha / math.sqrt(self.rank) * (a @ b)

  def _delta(self, ctx: Context, change: jax.Array) -> jax.Array:
    """[B, T, H] the change at the tokens of each input."""
    assert ctx.mask is not None  # declared
    there = ctx.mask.shape[1]
    # In a program to be exported the length has no number yet; positions behind stay as they are.
    if isinstance(there, int) and there > self.input_length:
      name, most = f'{type(self).__name__}.input_length', self.input_length
      raise UserError(
        f'An input has {there} positions, and {name} is {most}: there are numbers for no more. '
        f'Shorten inputs to {most} tokens, or train with {name} as large as the longest input.'
      )
    change = jnp.take(change, jnp.arange(there), axis=0, mode='fill', fill_value=0)
    return jnp.where(ctx.mask[..., None], change[None], 0)
