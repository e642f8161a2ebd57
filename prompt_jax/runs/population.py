"""`prompt-jax population`: many prompts at once on one frozen model. The phases are in order."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from prompt_jax.configuration import config
from prompt_jax.data.example import Lengths, Task
from prompt_jax.errors import UserError
from prompt_jax.loading import BaseModel
from prompt_jax.runs import cells, task_choice
from prompt_jax.runs.candidates import Candidate, Parts, candidates
from prompt_jax.runs.devices import Devices, on_mesh
from prompt_jax.runs.population_report import conclude
from prompt_jax.runs.population_scores import Scores
from prompt_jax.runs.setup import set_up
from prompt_jax.runtime import processes
from prompt_jax.training import loop
from prompt_jax.training.losses import Loss
from prompt_jax.training.settings import Settings


def population(
  *,
  base: BaseModel,
  devices: Devices,
  choose_task: Callable[[], Task],
  choose_parts: Callable[[], Parts],
  output: str | None,
  settings: Settings,
  loss: Loss,
  dropout: float,
  batch_size: int,
  most: Lengths,
  max_positions: int,
  seeds: Sequence[int],
  learning_rates: Sequence[float] | None,
  lengths: Sequence[int] | None,
  inits: Sequence[str] | None,
  grid: Mapping[str, Sequence[Any]],
  halving: Sequence[int],
  at_once: int | None,
) -> None:
  """Trains a prompt for each seed and setting, measures all, and keeps the best beside them.

  Args:
    base: the model.
    devices: where to compute.
    choose_task: `task_choice.choose`.
    choose_parts: makes `Parts`.
    output: folder for results; None for runs/ and the task's name.
    settings: see `training.settings.Settings`; seed, metric and warm start are each prompt's own.
    loss: what is minimised.
    dropout: probability with which the model drops out while prompts train.
    batch_size: examples a step of each prompt.
    most: tokens of an input and of a target.
    max_positions: of the encoder, prompt rows and tokens together.
    seeds: one prompt of each setting for each.
    learning_rates: values of LEARNING_RATE.
    lengths: values of PROMPT_LENGTH.
    inits: names of files in gin/inits.
    grid: values of other macros and bindings, by name.
    halving: steps at which the worse half stops.
    at_once: most prompts computed together; None for what suits the device, on a mesh for all.
  """
  console = Console(quiet=not processes.is_first())
  placement = devices.start()
  settings = on_mesh(settings, placement, base, batch_size)
  settings = dataclasses.replace(settings, dropout=dropout > 0)
  varied = _grid(learning_rates, lengths, inits, grid)
  grid_cells = _cells(varied)
  _check_seeds(seeds)
  with cells.applied(grid_cells[0]):
    first = choose_task()
  setup = set_up(base, placement, first, None, most, dropout, console)
  own_task = any(config.is_in(name, config.reads(task_choice.choose)) for name in varied)
  found = candidates(
    grid_cells,
    seeds,
    setup,
    choose_parts,
    choose_task if own_task else None,
    settings,
    loss,
    batch_size,
    max_positions,
  )
  tasks = list(dict.fromkeys(c.setup.task.name for c in found))
  _check_tasks(found, tasks, halving)
  folder = pathlib.Path(output or f'runs/{"-".join(tasks)}')
  may_change = ('STEPS', 'AT_ONCE', 'MESH', 'LAYOUT', 'SLICES')
  processes.broadcast(lambda: config.record(folder, may_change))
  scores = Scores(found, settings.patterns, batch_size, at_once)
  results = loop.train_members(
    members=[c.member for c in found],
    backbone=setup.backbone.params,
    settings=settings,
    folder=folder,
    evaluate=scores.validation if found[0].member.metric is not None else None,
    rungs=halving,
    at_once=at_once,
    console=console,
    placement=placement,
  )
  conclude(found, results, scores, folder, batch_size)


def _grid(
  learning_rates: Sequence[float] | None,
  lengths: Sequence[int] | None,
  inits: Sequence[str] | None,
  others: Mapping[str, Sequence[Any]],
) -> dict[str, Sequence[Any]]:
  """All that varies, by the names of gin."""
  named = {'LEARNING_RATE': learning_rates, 'PROMPT_LENGTH': lengths, cells.INIT: inits}
  given = {name: values for name, values in named.items() if values is not None}
  twice = sorted(given.keys() & others.keys())
  if twice:
    raise UserError(f'{", ".join(twice)} varies twice: in GRID, and by a flag of its own.')
  return {**given, **others}


def _cells(varied: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
  """Every combination, of which each was seen to be one that a prompt can have."""
  cells.check_names(varied, [Parts, task_choice.choose], [Settings, Loss])
  found = cells.combinations(varied)
  for cell in found:
    with cells.applied(cell):
      config.check(Parts, task_choice.choose)
  return found


def _check_seeds(seeds: Sequence[int]) -> None:
  if not seeds:
    raise UserError('A population needs at least one seed: give --seeds 0,1,2.')
  if len(set(seeds)) < len(seeds):
    raise UserError(f'The seeds {", ".join(map(str, seeds))} repeat; each is one prompt.')


def _check_tasks(
  population: Sequence[Candidate], tasks: Sequence[str], halving: Sequence[int]
) -> None:
  """Refuses tasks whose prompts cannot be judged side by side."""
  for task in {c.setup.task.name: c.setup.task for c in population}.values():
    if task.mixing is not None:
      raise UserError(
        f'{task.name} is a mixture, and a population trains prompts of one task each. Train it '
        'with prompt-jax train, or give its tasks as a grid: --gin.GRID="{\'TASK\': [...]}".'
      )
  if halving and len(tasks) > 1:
    raise UserError(
      f'Halving compares scores, and those of {", ".join(tasks)} are of different tasks. Give '
      'populations of one task each.'
    )
  if halving and len({c.digests.get('validation') for c in population}) > 1:
    raise UserError(
      'Halving compares scores, and the settings draw or read different validation examples. Give '
      'all the same (--validation FILE), or leave out --halving.'
    )
  for name in tasks:
    if len({_measured(c) for c in population if c.setup.task.name == name}) > 1:
      raise UserError(
        f'Some settings of the task {name!r} are measured on other examples than others, and their '
        'scores would stand in one table. Give the same --test FILE, give files other names, or '
        'run them apart.'
      )
  judged = {c.setup.task.name for c in population if c.member.metric is not None}
  if judged and len(judged) < len(tasks):
    without = ', '.join(name for name in tasks if name not in judged)
    raise UserError(
      f'{without} has no validation examples, and other tasks of the population do. Train it apart.'
    )


def _measured(candidate: Candidate) -> tuple[Any, ...]:
  """What the table at the end is made on: equal where scores may be compared."""
  split = next((s for s in ('test', 'validation') if s in candidate.digests), '')
  return candidate.setup.task.labels, split, candidate.digests.get(split)
