"""The prompts of a population, ready to train: one for each seed and setting."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import optax

from prompt_jax.data.batches import BatchStream
from prompt_jax.data.example import Task
from prompt_jax.data.stream import digest
from prompt_jax.prompts.initialise import without_initializers
from prompt_jax.runs import cells, task_prompts
from prompt_jax.runs.setup import (
  Setup,
  check_positions,
  fresh_prompt,
  metadata_of,
  metric_of,
  with_method,
  with_task,
)
from prompt_jax.training.losses import Loss
from prompt_jax.training.members import Member
from prompt_jax.training.objective import CrossEntropy
from prompt_jax.training.optim import Update
from prompt_jax.training.settings import Settings


@dataclasses.dataclass(frozen=True)
class Parts:
  """What gin builds for every setting, besides the task.

  Attributes:
    prompt: the method.
    optimizer: of its parameters.
    warm_start: a prompt file to begin with.
  """

  prompt: nn.Module
  optimizer: optax.GradientTransformation
  warm_start: str | None = None


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A prompt of the population.

  Attributes:
    cell: its setting.
    setup: what it shares with the other seeds of that setting.
    member: its run.
    digests: split -> checksum of its examples, to tell those of one cell from those of another.
  """

  cell: Mapping[str, Any]
  setup: Setup
  member: Member
  digests: Mapping[str, int]


def candidates(
  grid: Sequence[Mapping[str, Any]],
  seeds: Sequence[int],
  base: Setup,
  choose_parts: Callable[[], Parts],
  choose_task: Callable[[], Task] | None,
  settings: Settings,
  loss: Loss,
  batch_size: int,
  max_positions: int,
) -> list[Candidate]:
  """One prompt for each cell and seed, what a run of its own would begin with.

  Args:
    grid: cells, see `cells.combinations`.
    seeds: of each cell.
    base: the model, and the examples of the task that all share.
    choose_parts: builds the parts of a cell.
    choose_task: builds its task; None if all share that of `base`.
    settings: of all.
    loss: what each minimises.
    batch_size: examples a step.
    max_positions: most encoder positions.
  """
  found = []
  of_base = _digests(base)
  for cell in grid:
    with cells.applied(cell):
      parts = choose_parts()
      setup = base if choose_task is None else with_task(base, choose_task())
      digests = of_base if choose_task is None else _digests(setup)
      setup = with_method(setup, parts.prompt)
      metadata = metadata_of(setup, settings)
    metric = metric_of(setup, settings)
    for seed in seeds:
      prompt, constants = fresh_prompt(setup, seed)
      params = {'backbone': setup.backbone.params, 'prompt': prompt}
      check_positions(setup, params, constants, max_positions)
      member = Member(
        name=cells.folder(cell, seed),
        objective=CrossEntropy(without_initializers(setup.model), loss, settings.dropout),
        update=Update(parts.optimizer),
        prompt=prompt,
        constants=constants,
        stream=BatchStream(
          setup.examples['train'],
          batch_size,
          seed=seed,
          task_ids=task_prompts.numbers(setup.model.prompt, setup.task),
        ),
        metadata=metadata,
        seed=seed,
        metric=metric,
        warm_start=parts.warm_start,
      )
      found.append(Candidate(cell, setup, member, digests))
  return found


def _digests(setup: Setup) -> dict[str, int]:
  return {split: digest(examples) for split, examples in setup.examples.items()}
