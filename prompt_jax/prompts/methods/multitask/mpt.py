"""Multitask prompt tuning: one prompt for all tasks, and a low-rank factor for each."""

import dataclasses
from typing import ClassVar, Self

import flax.linen as nn
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import PLACEMENTS, Context, Injection, Injections, Placement
from prompt_jax.prompts.base import PromptMethod, check_length, own_table
from prompt_jax.prompts.tables import Plain


class MPT(PromptMethod):
  """P_k = P * (U_k V_k) for task k, elementwise (MPT, ICLR 2023, arXiv:2303.02861, equation 1).

  With rank 1, as published, U_k V_k = u_k v_k^T. Both start at ones (of rank r: 1/r in U), so that
  every task begins with P itself. The paper trains P at 0.3 and the factors at 0.4.

  Parameters: a table at `encoder` P [P, H]; `rows` U [tasks, P, rank], `columns` V
  [tasks, rank, H].

  Attributes:
    tasks: a run on a mixture sets it to the number of its tasks.
    length: P.
    rank: r, of the factors.
    table: how the shared rows are parametrised.
    placement: where the rows go in the encoder's input.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({'task_id'})

  tasks: int = 1
  length: int = 100
  rank: int = 1
  table: nn.Module = dataclasses.field(default_factory=Plain)
  placement: Placement = 'before'

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    self._check()
    if ctx.task_id is None:
      raise UserError(
        f'This prompt is of {self.tasks} tasks, and nothing says which an input belongs to. Take '
        'the prompt of one task by itself: training has put each into the folder task_prompts '
        'beside this file.'
      )
    width = ctx.input_dims.H
    shared = own_table(self, self.table, ctx.input_stack)((self.length, width))
    start = nn.initializers.constant(1 / self.rank)
    u = self.param('rows', start, (self.tasks, self.length, self.rank))
    v = self.param('columns', nn.initializers.ones, (self.tasks, self.rank, width))
    # [B, P, H]; [B, G, P, H] of packed rows.
    rows = jnp.einsum('ph,...pr,...rh->...ph', shared, u[ctx.task_id], v[ctx.task_id])
    return Injections.of({ctx.input_stack: Injection(prefix=rows, placement=self.placement)})

  def for_tasks(self, count: int) -> Self:
    return self.clone(tasks=count)

  def _check(self) -> None:
    check_length(self)
    for name in ('tasks', 'rank'):
      if getattr(self, name) < 1:
        raise UserError(f'MPT.{name} is {getattr(self, name)}; it must be at least 1.')
    if self.placement not in PLACEMENTS:
      raise UserError(f'MPT.placement is {self.placement!r}; known: {", ".join(PLACEMENTS)}.')
