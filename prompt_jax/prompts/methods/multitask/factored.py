"""Factored prompts: rows for the language of an example, and rows for its task."""

import dataclasses
from collections.abc import Mapping
from typing import Self

import flax.linen as nn
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import PLACEMENTS, TASK, Context, Injection, Injections, Placement
from prompt_jax.prompts.base import PromptMethod, check_choices, check_least, own_table
from prompt_jax.prompts.tables import Plain


class Factored(PromptMethod):
  """X' = [P_language; P_task; X] (Vu et al. 2022, arXiv:2205.12647, factorized prompts).

  A language learns from all tasks in it and a task from all languages, so that a task can be asked
  in a language in which it was not trained. Any features may be the factors, in their order.

  Parameters: for each feature a table at its name, [values, length, H].

  Attributes:
    features: of an example: columns of the data, or "task_id".
    values: how many values each has; a run takes them from its training examples.
    length: rows of each; the authors have 50.
    table: how the rows are parametrised; each feature has a copy.
    placement: where the rows go in the encoder's input.
  """

  features: tuple[str, ...] = ('language', TASK)
  values: tuple[int, ...] = ()
  length: int = 50
  table: nn.Module = dataclasses.field(default_factory=Plain)
  placement: Placement = 'before'

  @property
  def depends_on(self) -> frozenset[str]:  # type: ignore[override]
    return frozenset(self.features)

  def for_features(self, counts: Mapping[str, int]) -> Self:
    known = zip(self.features, self._values(), strict=True)
    return self.clone(values=tuple(counts.get(name, count) for name, count in known))

  def _values(self) -> tuple[int, ...]:
    return self.values or (1,) * len(self.features)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_least(self, length=1)
    check_choices(self, placement=PLACEMENTS)
    values = self._values()
    names = set(self.features)
    if not names or len(names) < len(self.features) or len(values) != len(self.features):
      raise UserError(
        f'Factored.features is {self.features!r}, of {values!r} values; expected different columns '
        "of the data, such as ('language', 'task_id'), and a number for each."
      )
    rows = []
    for name, count in zip(self.features, values, strict=True):
      of_name = own_table(self, self.table, name)((count, self.length, ctx.input_dims.H))
      rows.append(of_name[ctx.features[name]])  # [B, P, H]; [B, G, P, H] of packed rows
    prefix = jnp.concatenate(rows, axis=-2)
    return Injections.of({ctx.input_stack: Injection(prefix, placement=self.placement)})
