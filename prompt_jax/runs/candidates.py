"""The prompts of a population, ready to train: one for each seed and setting."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_jax.data.batches import BatchStream, digest
from prompt_jax.evaluation.predictions import answers_digest
from prompt_jax.prompts.initialise import without_initializers
from prompt_jax.runs.setup import (
  JUDGES,
  Setup,
  check_positions,
  fresh_prompt,
  metadata_of,
  metric_of,
  with_judges,
  with_method,
  with_task,
)
from prompt_jax.runs.variants import Variant
from prompt_jax.runs.variants import folder as folder_name
from prompt_jax.training.losses import Loss
from prompt_jax.training.members import Member
from prompt_jax.training.objective import CrossEntropy
from prompt_jax.training.optim import Update
from prompt_jax.training.settings import Settings


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A prompt of the population.

  Attributes:
    setting: name -> value, of what varies.
    setup: what it shares with the other seeds of that variant.
    member: its run.
    digests: split -> checksum of its examples, to tell those of one variant from another's.
  """

  setting: Mapping[str, Any]
  setup: Setup
  member: Member
  digests: Mapping[str, int]


def candidates(
  variants: Sequence[Variant],
  seeds: Sequence[int],
  base: Setup,
  settings: Settings,
  loss: Loss,
  batch_size: int,
  max_positions: int,
  validation_examples: int | None,
) -> list[Candidate]:
  """One prompt for each variant and seed, what a run of its own would begin with.

  Args:
    variants: of the population.
    seeds: of each variant.
    base: the model, and the examples of the first variant's task.
    settings: of all.
    loss: what each minimises.
    batch_size: examples a step.
    max_positions: most encoder positions.
    validation_examples: see `splits.judges`.
  """
  found = []
  of_base = _digests(base)
  base = with_judges(base, validation_examples, settings, batch_size)
  for variant in variants:
    shared = variant.task is base.task
    setup = base if shared else with_task(base, variant.task)
    digests = of_base if shared else _digests(setup)
    if not shared:
      setup = with_judges(setup, validation_examples, settings, batch_size)
    setup = with_method(setup, variant.prompt)
    metadata = metadata_of(setup, settings, variant.settings_text)
    metric = metric_of(setup, settings)
    judged_on = answers_digest(setup.examples.get(JUDGES, ()))
    for seed in seeds:
      prompt, constants = fresh_prompt(setup, seed, variant.warm_start)
      params = {'backbone': setup.backbone.params, 'prompt': prompt}
      check_positions(setup, params, constants, max_positions)
      member = Member(
        name=folder_name(variant.setting, seed),
        objective=CrossEntropy(without_initializers(setup.model), loss, settings.dropout),
        update=Update(variant.optimizer),
        prompt=prompt,
        constants=constants,
        stream=BatchStream(
          setup.examples['train'],
          batch_size,
          seed=seed,
          features=setup.features,
        ),
        metadata=metadata,
        seed=seed,
        metric=metric,
        warm_start=variant.warm_start,
        judged_on=judged_on,
      )
      found.append(Candidate(variant.setting, setup, member, digests))
  return found


def _digests(setup: Setup) -> dict[str, int]:
  return {split: digest(examples) for split, examples in setup.examples.items()}
