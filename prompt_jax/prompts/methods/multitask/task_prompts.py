"""One prompt for each of several tasks, and rows that all of them share."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Self

import flax.linen as nn
import jax.numpy as jnp

from prompt_jax.injections import PLACEMENTS, TASK, Context, Injection, Injections, Placement
from prompt_jax.prompts.base import PromptMethod, check_choices, check_least, own_table
from prompt_jax.prompts.tables import Plain


class TaskPrompts(PromptMethod):
  """X' = [S; P_k; X] for an example of task k: prompt tuning of many tasks in one run.

  With shared = 0 the tasks have nothing in common but the batches, and the run is K runs of prompt
  tuning (Lester et al. 2021, section 2) on a mixture; with shared > 0 the rows S learn from all
  (multi-task prompt tuning as in google-research/prompt-tuning, without its first-token task id).

  Parameters: a table at `tasks` [K, length, H], and at `shared` [shared, H] where there is one.

  Attributes:
    tasks: K; a run on a mixture sets it to the number of its tasks.
    length: rows of each task's own prompt.
    shared: rows in front of them for every task.
    table: how the rows are parametrised; the two have a copy each.
    placement: where the rows go in the encoder's input.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({TASK})

  tasks: int = 1
  length: int = 100
  shared: int = 0
  table: nn.Module = dataclasses.field(default_factory=Plain)
  placement: Placement = 'before'

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    self._check()
    asked = ctx.features[TASK]
    width = ctx.input_dims.H
    own = own_table(self, self.table, 'tasks')((self.tasks, self.length, width))
    rows = own[asked]  # [B, length, H]; [B, G, length, H] of packed rows
    if self.shared:
      common = own_table(self, self.table, 'shared')((self.shared, width))
      before = jnp.broadcast_to(common, (*rows.shape[:-2], *common.shape))
      rows = jnp.concatenate([before, rows], axis=-2)
    return Injections.of({ctx.input_stack: Injection(prefix=rows, placement=self.placement)})

  def for_features(self, counts: Mapping[str, int]) -> Self:
    return self.clone(tasks=counts[TASK])

  def _check(self) -> None:
    check_least(self, tasks=1, length=1, shared=0)
    check_choices(self, placement=PLACEMENTS)
