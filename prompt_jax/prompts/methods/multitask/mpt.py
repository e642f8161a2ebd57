"""Multitask prompt tuning: one prompt for all tasks, and a low-rank factor for each."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Self

import flax.linen as nn
import jax.numpy as jnp

from prompt_jax.injections import PLACEMENTS, TASK, Context, Injection, Injections, Placement
from prompt_jax.prompts.base import PromptMethod, check_choices, check_least, own_table
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

  depends_on: ClassVar[frozenset[str]] = frozenset({TASK})

  tasks: int = 1
  length: int = 100
  rank: int = 1
  table: nn.Module = dataclasses.field(default_factory=Plain)
  placement: Placement = 'before'

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_least(self, tasks=1, length=1, rank=1)
    check_choices(self, placement=PLACEMENTS)
    asked = ctx.features[TASK]
    width = ctx.input_dims.H
    shared = own_table(self, self.table, ctx.input_stack)((self.length, width))
    start = nn.initializers.constant(1 / self.rank)
    u = self.param('rows', start, (self.tasks, self.length, self.rank))
    v = self.param('columns', nn.initializers.ones, (self.tasks, self.rank, width))
    # [B, P, H]; [B, G, P, H] of packed rows.
    rows = jnp.einsum('ph,...pr,...rh->...ph', shared, u[asked], v[asked])
    return Injections.of({ctx.input_stack: Injection(prefix=rows, placement=self.placement)})

  def for_features(self, counts: Mapping[str, int]) -> Self:
    return self.clone(tasks=counts[TASK])
