"""The cells of a sweep, and the commands that run them, as a user would type them."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from prompt_jax.errors import UserError
from prompt_jax.runs import variants

Setting = Mapping[str, Any]
# Flags of `train` and of `population`, by the name of an axis; other axes are names of gin.
FLAGS = {
  'model': '--model',
  'task': '--task',
  'method': '--prompt',
  'init': '--init',
  'length': '--length',
  'learning_rate': '--learning_rate',
}
TOGETHER = {'init': '--inits', 'length': '--lengths', 'learning_rate': '--learning_rates'}
# What the sweep sets for each cell, so a user cannot.
OWN = ('OUTPUT', 'SEED', 'SEEDS')
MODEL_TUNING = 'all'  # in the place of a method


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run.

  Attributes:
    setting: axis -> value.
    label: the same with short values, for names and tables.
    seed: of the run.
    name: of its folder.
  """

  setting: Setting
  label: Setting
  seed: int
  name: str


@dataclasses.dataclass(frozen=True)
class Job:
  """One command: for one cell, or for several that train together.

  Attributes:
    name: of its folder.
    verb: "train" or "population".
    flags: all but --output.
    cells: that it trains.
  """

  name: str
  verb: str
  flags: tuple[str, ...]
  cells: tuple[Cell, ...]


def cells_of(axes: Mapping[str, Sequence[Any]], seeds: Sequence[int]) -> list[Cell]:
  """Every setting with every seed, seeds varying fastest.

  Raises:
    UserError: no list, or values or seeds that repeat.
  """
  if not seeds or len(set(seeds)) < len(seeds):
    raise UserError(f'SEEDS is {list(seeds)!r}; expected different whole numbers, at least one.')
  settings = variants.combinations(axes)
  shown = {axis: _short(values) for axis, values in axes.items()}
  labels = variants.combinations(shown)
  found = [
    Cell(setting, label, seed, variants.folder(label, seed))
    for setting, label in zip(settings, labels, strict=True)
    for seed in seeds
  ]
  names = [cell.name for cell in found]
  twice = sorted({name for name in names if names.count(name) > 1})
  if twice:
    raise UserError(f'Two cells would have the folder {twice[0]!r}; give values that differ more.')
  return found


def _short(values: Sequence[Any]) -> list[Any]:
  """The last parts of paths, if these are all different."""
  short = [pathlib.PurePath(v).name if isinstance(v, str) and '/' in v else v for v in values]
  return short if len(set(map(repr, short))) == len(values) else list(values)


def check_names(axes: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
  """Refuses names that are given twice, or that the sweep sets for each cell."""
  for name in (*axes, *fixed):
    if name in OWN:
      raise UserError(f'The sweep sets {name} for each cell; give seeds as a list, SEEDS = [0, 1].')
  twice = sorted(axes.keys() & fixed.keys())
  if twice:
    raise UserError(f'{", ".join(twice)} is in GRID and in FIXED; give it in one of them.')


def train_job(cell: Cell, fixed: Mapping[str, Any], gin_files: Sequence[str]) -> Job:
  """The command of one cell."""
  flags = (*_shared(fixed, gin_files), *_flags(cell.setting), f'--seed={cell.seed}')
  return Job(cell.name, 'train', flags, (cell,))


def population_jobs(
  found: Sequence[Cell],
  varies: Collection[str],
  fixed: Mapping[str, Any],
  gin_files: Sequence[str],
) -> list[Job]:
  """Commands for all cells: one for all cells that differ only in seeds and in `varies`.

  Args:
    found: the whole product.
    varies: axes in which the prompts of a population may differ.
    fixed: see `train_job`.
    gin_files: see `train_job`.
  """
  groups: dict[str, list[Cell]] = {}
  for cell in found:
    together = cell.setting.get('method') != MODEL_TUNING
    apart = {n: v for n, v in cell.label.items() if n not in varies}
    key = f'together-{variants.folder(apart, None)}' if together else cell.name
    groups.setdefault(key, []).append(cell)
  jobs = []
  for name, members in groups.items():
    if len(members) == 1:
      jobs.append(train_job(members[0], fixed, gin_files))
    else:
      flags = [*_shared(fixed, gin_files), *_together(members, varies)]
      jobs.append(Job(name.strip('-'), 'population', tuple(flags), tuple(members)))
  return jobs


def _together(members: Sequence[Cell], varies: Collection[str]) -> list[str]:
  """Flags of `population` for cells that are a whole product of what varies."""
  first = members[0].setting
  values = {n: _distinct(c.setting[n] for c in members) for n in first if n in varies}
  flags = _flags({n: v for n, v in first.items() if n not in varies})
  for axis, flag in TOGETHER.items():
    if axis in values:
      flags.append(f'{flag}={",".join(map(str, values[axis]))}')
  others = {n: v for n, v in values.items() if n not in TOGETHER}
  flags += [f'--gin.GRID={others!r}'] if others else []
  return [*flags, f'--seeds={",".join(str(s) for s in _distinct(c.seed for c in members))}']


def _distinct(values: Any) -> list[Any]:
  return list({repr(value): value for value in values}.values())


def _shared(fixed: Mapping[str, Any], gin_files: Sequence[str]) -> list[str]:
  return [
    *(f'--gin_file={os.fspath(path)}' for path in gin_files),
    *(f'--gin.{name}={value!r}' for name, value in fixed.items()),
  ]


def _flags(setting: Setting) -> list[str]:
  """A setting as flags of `train`."""
  flags: list[str] = []
  for axis, value in setting.items():
    if axis == 'task' and not isinstance(value, str):
      flags += ['--task', *value]
    elif axis == 'method' and value == MODEL_TUNING:
      flags.append('--train=all')
    elif axis in FLAGS:
      flags.append(f'{FLAGS[axis]}={value}')
    else:
      flags.append(f'--gin.{axis}={value!r}')
  return flags


def settings_of(found: Sequence[Cell]) -> list[list[Cell]]:
  """The cells of each setting, which differ only in the seed."""
  groups = itertools.groupby(found, key=lambda cell: repr(dict(cell.setting)))
  return [list(members) for _, members in groups]
