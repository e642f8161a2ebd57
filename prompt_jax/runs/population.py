"""Train many prompts at once on one frozen model. The phases are in order."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from prompt_jax.errors import UserError
from prompt_jax.loading import BaseModel, Devices
from prompt_jax.runs.candidates import Candidate, candidates
from prompt_jax.runs.population_report import conclude
from prompt_jax.runs.population_scores import PopulationScores
from prompt_jax.runs.record import Record
from prompt_jax.runs.results import PopulationResult
from prompt_jax.runs.setup import console_of, on_mesh, set_up
from prompt_jax.runs.variants import Variant
from prompt_jax.runtime import processes
from prompt_jax.training import loop
from prompt_jax.training.losses import Loss
from prompt_jax.training.settings import Settings


def population(
  *,
  base: BaseModel,
  devices: Devices,
  variants: Sequence[Variant],
  output: str | None,
  settings: Settings,
  loss: Loss,
  dropout: float,
  batch_size: int,
  input_length: int | None,
  target_length: int,
  validation_examples: int | None,
  max_positions: int,
  seeds: Sequence[int],
  halving: Sequence[int],
  at_once: int | None,
  record: Record,
  console: Console | None = None,
) -> PopulationResult:
  """Trains a prompt for each variant and seed, measures all, and keeps the best beside them.

  Args:
    base: the model.
    devices: where to compute.
    variants: at least one: what varies between the prompts.
    output: folder for results; None for runs/ and the task's name.
    settings: see `training.settings.Settings`; seed, metric and warm start are each prompt's own.
    loss: what is minimised.
    dropout: probability with which the model drops out while prompts train.
    batch_size: examples a step of each prompt.
    input_length: most tokens of an input; None for `splits.default_length`.
    target_length: most tokens of a target.
    validation_examples: see `splits.judges`.
    max_positions: of the encoder, prompt rows and tokens together.
    seeds: one prompt of each variant for each.
    halving: steps at which the worse half stops.
    at_once: most prompts computed together; None for what suits the device, on a mesh for all.
    record: all of these settings as text.
    console: where to print; None is silent.

  Raises:
    UserError: prompts that cannot be compared or trained together, or another record than the
      folder's; else see `training.loop.train_members`.
  """
  placement = devices.start()
  console = console_of(console)
  settings = on_mesh(settings, placement, base, batch_size)
  settings = dataclasses.replace(settings, dropout=dropout > 0)
  _check_seeds(seeds)
  record.show(console)
  setup = set_up(
    base, placement, variants[0].task, None, (input_length, target_length), dropout, console
  )
  found = candidates(
    variants, seeds, setup, settings, loss, batch_size, max_positions, validation_examples
  )
  tasks = list(dict.fromkeys(c.setup.task.name for c in found))
  _check_tasks(found, tasks, halving)
  folder = pathlib.Path(output or f'runs/{"-".join(tasks)}')
  may_change = ('STEPS', 'AT_ONCE', 'MESH', 'LAYOUT', 'SLICES')
  processes.broadcast(lambda: record.check(folder, may_change))
  scores = PopulationScores(found, settings.patterns, batch_size, at_once)
  results = loop.train_members(
    members=[c.member for c in found],
    backbone=setup.backbone.params,
    settings=settings,
    folder=folder,
    evaluate=scores.validation if found[0].member.metric is not None else None,
    rungs=halving,
    at_once=at_once,
    begun=lambda: record.write(folder),
    console=console,
    placement=placement,
  )
  results = scores.chosen(results, settings.mode)
  return conclude(found, results, scores, folder, batch_size)


def _check_seeds(seeds: Sequence[int]) -> None:
  if not seeds:
    raise UserError('A population needs at least one seed, such as 0.', ['seeds'])
  if len(set(seeds)) < len(seeds):
    raise UserError(
      f'The seeds {", ".join(map(str, seeds))} repeat; each is one prompt.', ['seeds']
    )


def _check_tasks(
  population: Sequence[Candidate], tasks: Sequence[str], halving: Sequence[int]
) -> None:
  """Refuses tasks whose prompts cannot be compared."""
  for task in {c.setup.task.name: c.setup.task for c in population}.values():
    if task.mixing is not None:
      raise UserError(
        f'{task.name} is a mixture, and a population trains prompts of one task each. Train it '
        'by itself, or give a grid with its tasks as the values of TASK.',
        parameters=['task', 'grid'],
      )
  if halving and len(tasks) > 1:
    raise UserError(
      f'Halving compares scores, and those of {", ".join(tasks)} are of different tasks. Give '
      'populations of one task each.'
    )
  if halving and len({c.digests.get('validation') for c in population}) > 1:
    raise UserError(
      'Halving compares scores, and the settings draw or read different validation examples. Give '
      'all the same, or leave out halving.',
      parameters=['validation', 'halving'],
    )
  for name in tasks:
    if len({_measured(c) for c in population if c.setup.task.name == name}) > 1:
      raise UserError(
        f'Some settings of the task {name!r} are measured on other examples than others, and their '
        'scores would stand in one table. Give the same test file, give files other names, or '
        'run them apart.',
        parameters=['test'],
      )
  selected_by_score = {c.setup.task.name for c in population if c.member.metric is not None}
  if selected_by_score and len(selected_by_score) < len(tasks):
    without = ', '.join(name for name in tasks if name not in selected_by_score)
    raise UserError(
      f'{without} has no validation examples, and other tasks of the population do. Train it by '
      'itself.',
      parameters=['validation'],
    )


def _measured(candidate: Candidate) -> tuple[Any, ...]:
  """What the table at the end is made on: equal where scores may be compared."""
  split = next((s for s in ('test', 'validation') if s in candidate.digests), '')
  return candidate.setup.task.labels, split, candidate.digests.get(split)
