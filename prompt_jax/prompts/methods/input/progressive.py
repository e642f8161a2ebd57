"""Progressive prompts: the prompt of a new task in front of those of earlier ones."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from prompt_jax.injections import PLACEMENTS, Context, Injection, Injections, Placement
from prompt_jax.prompts.base import (
  PromptMethod,
  check_choices,
  check_least,
  check_length,
  own_table,
)
from prompt_jax.prompts.initializers import FromFile, Initializer
from prompt_jax.prompts.tables import Plain


class Progressive(PromptMethod):
  """X' = [P_k; P_{k-1}; ...; P_1; X], of which P_k alone trains (Progressive Prompts, Razdaibiedina
  et al. 2023, arXiv:2301.12314; newest first, as in the authors' code).

  The rows of a finished prompt are what the next one takes as `first_rows`: exported as .npy, they
  are those of all tasks so far.

  Parameters: a table at `encoder` P_k [P, H]. Constant: `earlier` [earlier, H].

  Attributes:
    length: P, rows of the new task; the authors take 10.
    earlier: rows of all earlier tasks together; 0 for the first task.
    first_rows: where these come from.
    table: how the new rows are parametrised; the authors also take `tables.Residual`.
    placement: where all rows go in the encoder's input.
  """

  length: int = 10
  earlier: int = 0
  first_rows: Initializer = dataclasses.field(default_factory=FromFile)
  table: nn.Module = dataclasses.field(default_factory=Plain)
  placement: Placement = 'before'

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    self._check()
    width = ctx.input_dims.H
    rows = own_table(self, self.table, ctx.input_stack)((self.length, width))
    if self.earlier:
      shape = (self.earlier, width)
      made = lambda: self.first_rows(self.make_rng('params'), shape)
      rows = jnp.concatenate([rows, self.variable('constants', 'earlier', made).value])
    return Injections.of({ctx.input_stack: Injection(rows[None], placement=self.placement)})

  def _check(self) -> None:
    check_length(self)
    check_least(self, earlier=0)
    check_choices(self, placement=PLACEMENTS)
