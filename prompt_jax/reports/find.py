"""Finds runs: folders that a prompt-jax command has written to, at any depth."""

import os
import pathlib
from collections.abc import Sequence

from prompt_jax.errors import UserError
from prompt_jax.named_prompts import OF_TASKS, STATE
from prompt_jax.reports import read
from prompt_jax.reports.results import UnreadableError
from prompt_jax.reports.runs import FoundRuns, Reference, Run, Unreadable

CONFIG = 'operative_config.gin'
RECORDS = 'metrics.jsonl'
# Folders of a run that hold no runs.
SKIPPED = (*STATE, OF_TASKS)


def find(folders: Sequence[str]) -> FoundRuns:
  """The runs in some folders and below.

  Args:
    folders: paths; a run in several of them counts once.

  Raises:
    UserError: a folder does not exist, or none holds a run.
  """
  roots = [_root(name) for name in folders]
  unreadable: list[Unreadable] = []
  places: dict[pathlib.Path, pathlib.Path] = {}  # real path -> as it was reached
  for root in roots:
    for place in _places(root, unreadable):
      places.setdefault(place.resolve(), place)
  runs: list[Run] = []
  references: dict[Reference, None] = {}
  for place in places.values():
    try:
      found = read.folder(place, _name(place, roots))
    except (OSError, UnreadableError) as e:
      reason = (e.strerror or str(e)) if isinstance(e, OSError) else str(e)
      unreadable.append(Unreadable(place, reason))
      continue
    runs += found.runs
    references |= dict.fromkeys(found.references)
    unreadable += found.unreadable
  if not runs and not unreadable:
    raise UserError(
      f'No runs in {", ".join(folders)} or below. Looked for {CONFIG}, results.json and {RECORDS}, '
      'which train, population, eval (with an output folder) and pretrain write to their folders.'
    )
  return FoundRuns(tuple(runs), tuple(references), tuple(unreadable))


def _root(name: str) -> pathlib.Path:
  path = pathlib.Path(name)
  if os.path.isdir(path):
    return path
  if os.path.isfile(path):
    raise UserError(f'{name!r} is a file; expected a folder that runs have written to.')
  parent = path.parent
  near = sorted(p.name for p in parent.iterdir() if p.is_dir()) if os.path.isdir(parent) else []
  has = f' {str(parent)!r} has: {", ".join(near[:10])}.' if near else ''
  raise UserError(f'No folder {name!r}.{has}')


def _places(root: pathlib.Path, unreadable: list[Unreadable]) -> list[pathlib.Path]:
  """The folders of runs, in order; those of one run's seeds or stages belong to it."""
  places: list[pathlib.Path] = []

  def failed(e: OSError) -> None:
    unreadable.append(Unreadable(pathlib.Path(e.filename), e.strerror or str(e)))

  for name, below, files in os.walk(root, onerror=failed):
    below[:] = sorted(d for d in below if d not in SKIPPED and not d.startswith('.'))
    here = pathlib.Path(name)
    own = CONFIG in files or any(f.startswith('results') and f.endswith('.json') for f in files)
    if own or (RECORDS in files and not _part_of(here, places)):
      places.append(here)
  return places


def _part_of(folder: pathlib.Path, places: Sequence[pathlib.Path]) -> bool:
  """Whether a folder holds a seed, a prompt or a stage of a run found before."""
  above = folder.parent.parent if folder.parent.name == read.STAGES else folder.parent
  return above in places


def _name(place: pathlib.Path, roots: Sequence[pathlib.Path]) -> str:
  """The name of a folder: relative to the one requested, or with it where there are several."""
  root = next(r for r in roots if place.is_relative_to(r))
  below = place.relative_to(root).as_posix()
  short = root.resolve().name
  alike = sum(r.resolve().name == short for r in roots) > 1
  named = root.as_posix() if alike else short
  if below == '.':
    return named
  return below if len(roots) == 1 else f'{named}/{below}'
