"""The configuration of a population: its settings as values, one for each combination of a grid."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import flax.linen as nn
import optax

from prompt_jax.configuration import config, values
from prompt_jax.configuration.config import Configured
from prompt_jax.configuration.run_files import Request
from prompt_jax.data.example import Task
from prompt_jax.errors import UserError, unknown
from prompt_jax.runs import task_choice, variants
from prompt_jax.runs.population import population
from prompt_jax.runs.variants import INIT, Variant
from prompt_jax.training.losses import Loss
from prompt_jax.training.settings import Settings

# A setting of all prompts, and the one that gives several values.
ONE_OR_SEVERAL = {
  'LEARNING_RATE': 'LEARNING_RATES',
  'PROMPT_LENGTH': 'LENGTHS',
  'PROMPT_INIT': 'INITS',
}


@dataclasses.dataclass(frozen=True)
class Parts:
  """What is built for every combination, besides the task.

  Attributes:
    prompt: the method.
    optimizer: of its parameters.
    warm_start: a prompt file to begin with.
  """

  prompt: nn.Module
  optimizer: optax.GradientTransformation
  warm_start: str | None = None


@dataclasses.dataclass(frozen=True)
class Grid:
  """What varies in a population.

  Attributes:
    parts: `Parts`.
    task: `task_choice.choose`.
    learning_rates: values of LEARNING_RATE; None for one.
    lengths: values of PROMPT_LENGTH.
    inits: names of files in gin/inits.
    others: values of other macros and bindings, by name.
  """

  parts: Callable[..., Parts]
  task: Callable[..., Task]
  learning_rates: Sequence[float] | None
  lengths: Sequence[int] | None
  inits: Sequence[str] | None
  others: Mapping[str, Sequence[Any]]

  def values(self) -> dict[str, Sequence[Any]]:
    """All that varies, by the names of gin.

    Raises:
      UserError: something varies twice.
    """
    named = {
      'LEARNING_RATE': self.learning_rates,
      'PROMPT_LENGTH': self.lengths,
      INIT: self.inits,
    }
    given = {name: values for name, values in named.items() if values is not None}
    twice = sorted(given.keys() & self.others.keys())
    if twice:
      raise UserError(
        f'{", ".join(twice)} varies twice: in the grid, and by a list of its own.', ['grid']
      )
    return {**given, **self.others}


def load(request: Request) -> Configured:
  """The arguments of `population`, with its variants built.

  Raises:
    UserError: see `config.load`; or something that cannot vary, or is given once and as a list.
  """
  for one, several in ONE_OR_SEVERAL.items():
    if one in request.settings and several in request.settings:
      name, names = (request.origins.get(n, n.lower()) for n in (one, several))
      raise UserError(
        f'{name} is for all prompts, and {names} gives each its own. Leave one of them out.'
      )
  with config.parsed('population', population, request) as advice:
    record = config.record(population, request.command, advice)
    varied = config.built(Grid)
    grid = Grid(**varied).values()
    _check_names(grid)
    found = _variants(grid)
    return Configured({**config.built(population), 'variants': found}, record)


def _variants(grid: Mapping[str, Sequence[Any]]) -> list[Variant]:
  """Every combination, once each was seen to be one that a prompt can have."""
  settings = variants.combinations(grid)
  for setting in settings:
    with _applied(setting):
      values.check(values.reads(Parts, task_choice.choose))
  own_task = any(values.is_in(name, values.reads(task_choice.choose)) for name in grid)
  found: list[Variant] = []
  for setting in settings:
    with _applied(setting):
      text = values.complete(Parts, task_choice.choose)
      task = _made(task_choice.choose) if own_task or not found else found[0].task
      parts = _made(Parts)
    found.append(Variant(setting, parts.prompt, parts.optimizer, task, parts.warm_start, text))
  return found


def _made(part: Callable[..., Any]) -> Any:
  return part(**config.built(part))


def _applied(setting: Mapping[str, Any]) -> Any:
  """A context in which the parts of a combination are built."""
  includes = [('inits', setting[INIT])] if INIT in setting else []
  return config.changed({n: v for n, v in setting.items() if n != INIT}, includes)


def varying(names: Collection[str], request: Request) -> set[str]:
  """Those of some macros and bindings in which the prompts of one population may differ.

  Raises:
    UserError: see `config.load`.
  """
  with config.parsed('population', population, request):
    return {name for name in names if _may_vary(name)}


def _may_vary(name: str) -> bool:
  own, shared = _readers()
  return values.is_in(name, own) and not values.is_in(name, shared)


def _readers() -> tuple[set[str], set[str]]:
  """What the parts of every prompt read, and what is read once for all."""
  return values.reads(Parts, task_choice.choose), values.reads(Settings, Loss)


def _check_names(grid: Mapping[str, Any]) -> None:
  """Refuses what no prompt can have of its own."""
  own, shared = _readers()
  for name in grid.keys() - {INIT}:
    if _may_vary(name):
      continue
    if values.is_in(name, shared):
      raise UserError(
        f'{name} cannot vary in a population: its prompts share one loop. Give one value, and run '
        'the others apart.'
      )
    raise unknown(
      'setting of a prompt (in GRID)', name, {n for n in own - shared if '.' not in n} | {INIT}
    )
