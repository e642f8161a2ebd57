"""Reads the folder of a command as runs."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prompt_jax.checkpoints.on_disk import damaged
from prompt_jax.configuration import description
from prompt_jax.reports import results
from prompt_jax.reports.histories import (
  ABOUT,
  RECORDS,
  SEED,
  method_of,
  of_file,
  read_history,
  seconds,
  selected,
  settings_of,
)
from prompt_jax.reports.results import UNTUNED, VOTE, Results, UnreadableError
from prompt_jax.reports.runs import (
  FINISHED,
  UNFINISHED,
  UNMEASURED,
  FoundRuns,
  History,
  Reference,
  Run,
  Scores,
  Unreadable,
)

CONFIG = 'operative_config.gin'
PREDICTIONS = 'predictions.jsonl'
# Files of predictions that several prompts made together in an evaluation.
ENSEMBLES = {'majority vote': 'vote.jsonl', 'mean probability': 'average.jsonl'}
STAGES = 'runs'  # the folder of pretrain that holds its stages
# Of pretrain: the macros of each stage.
PRETRAINING = {
  'span_corruption': ('STEPS', 'LEARNING_RATE'),
  'prefix_lm': ('ADAPT_STEPS', 'ADAPT_LEARNING_RATE'),
}


class RunFolder(NamedTuple):
  """The contents of a folder.

  Attributes:
    place: the folder.
    name: shown in reports.
    settings: the operative configuration.
    results: by the names of their files.
    unreadable: where to add what cannot be read.
  """

  place: pathlib.Path
  name: str
  settings: Mapping[str, str]
  results: Mapping[str, Results]
  unreadable: list[Unreadable]


# Metadata of a prompt file, and the number of trained parameters.
Measured = tuple[Mapping[str, Any], int | None]


def folder(place: pathlib.Path, name: str) -> FoundRuns:
  """The runs of one folder.

  Args:
    place: the folder.
    name: shown in reports.

  Raises:
    UnreadableError: its configuration or results are damaged.
    OSError: they cannot be opened.
  """
  unreadable: list[Unreadable] = []
  settings = _settings(place)
  verb = _verb(place, settings)
  read: Callable[..., list[Run]] = {
    'train': _train, 'population': _population, 'eval': _eval, 'pretrain': _pretrain,
  }[verb]  # fmt: skip
  found = {path.name: results.read(path) for path in sorted(place.glob('results*.json'))}
  runs = read(RunFolder(place, name, settings, found, unreadable))
  model = runs[0].model if runs else None
  return FoundRuns(tuple(runs), tuple(_references(found.values(), model)), tuple(unreadable))


def _settings(place: pathlib.Path) -> dict[str, str]:
  path = place / CONFIG
  if not os.path.isfile(path):
    return {}
  if damage := damaged(place, CONFIG):
    raise UnreadableError(damage)
  try:
    return description.settings_of_text(path.read_text('utf-8'))
  except UnicodeDecodeError as e:
    raise UnreadableError(f'{CONFIG} is no text: {e}') from None


def _verb(place: pathlib.Path, settings: Mapping[str, str]) -> str:
  """Which verb wrote a folder: by its configuration, else by its files."""
  for verb in ('population', 'pretrain', 'eval', 'train'):
    entry = f'{verb}.{"evaluate" if verb == "eval" else verb}.'
    if any(name.startswith(entry) for name in settings):
      return verb
  trained = os.path.isfile(place / RECORDS) or any(place.glob(f'seed_*/{RECORDS}'))
  if trained:
    return 'train'
  return 'population' if any(place.glob(f'*/{RECORDS}')) else 'eval'


def _references(found: Iterable[Results], model: str | None) -> list[Reference]:
  return [
    Reference(
      r.task, r.split, name, model if name == UNTUNED else None, tuple(system.scores[0].items())
    )
    for r in found
    for name, system in r.systems.items()
    if name in results.BASELINES and system.scores
  ]


def _train(run_folder: RunFolder) -> list[Run]:
  """One run, with its seeds."""
  place, name, settings, found, unreadable = run_folder
  seeds = _seeds(settings)
  if os.path.isfile(place / RECORDS) or not (seeds or any(place.glob('seed_*'))):
    seed = _whole(settings, 'SEED') or 0
    seeds, begun = (seed,), [read_history(place, seed, unreadable)]
  else:
    there = {int(m[1]): p for p in place.iterdir() if (m := SEED.search(p.name))}
    seeds = seeds or tuple(sorted(there))
    begun = [read_history(there[s], s, unreadable) for s in seeds if s in there]
  own = found.get('results.json')
  run = _trained(place, name, 'train', settings_of(settings, begun), begun, seeds, own)
  tuned = next(iter(own.tuned.values()), None) if own else None
  if tuned and tuned.trained is not None:
    run = dataclasses.replace(run, trained=tuned.trained)
  if tuned and len(seeds) == 1:
    run = dataclasses.replace(run, intervals=tuned.intervals)
  if own:
    run = dataclasses.replace(run, on_validation=own.on_validation)
  return [_with_scores(run, tuned.scores if tuned else ())]


def _with_scores(run: Run, scores: Sequence[Scores]) -> Run:
  """The run with its status, and with its scores if all seeds have done their steps.

  Scores of a run that continues for more steps are from an earlier end, and left out.
  """
  patient = bool(scores) and description.value_of(run.settings, 'PATIENCE') is not None
  done = len(run.histories) == len(run.seeds) and all(
    c.ended or run.wanted is None or c.step >= run.wanted or patient for c in run.histories
  )
  status = UNFINISHED if not done else FINISHED if scores else UNMEASURED
  return dataclasses.replace(
    run, scores=tuple(scores) if done else (), status=status, note=_note(run, done)
  )


def _note(run: Run, done: bool) -> str:
  """Seeds that ended early and, where several are not done, the step of each."""
  said = {c.seed: f'{c.ended} at step {c.step}' for c in run.histories if c.ended}
  if not done and len(run.seeds) > 1:
    at = {c.seed: f'at step {c.step}' for c in run.histories}
    said = {seed: at.get(seed, 'not begun') for seed in run.seeds} | said
  return ', '.join(f'seed {seed} {words}' for seed, words in said.items())


def _trained(
  place: pathlib.Path,
  name: str,
  verb: str,
  settings: Mapping[str, str],
  begun: Sequence[History],
  seeds: Sequence[int],
  own: Results | None,
) -> Run:
  """A run that trains prompts or weights, finished or not."""
  facts = next((c.facts for c in begun if c.facts), {})
  rows = facts.get('length') or description.value_of(settings, 'PROMPT_LENGTH')
  metric, best = selected(begun, settings)
  labels = facts.get('labels')
  predictions = (c.folder / PREDICTIONS for c in begun)
  return Run(
    folder=place,
    name=name,
    verb=verb,
    task=own.task if own else str(facts.get('task') or _task(settings)),
    split=own.split if own else None,
    model=facts.get('base_model') or _last_part(description.value_of(settings, 'MODEL')),
    method=method_of(facts, settings),
    rows=rows if isinstance(rows, int) and facts.get('method') != 'none' else None,
    trained=next((c.numbers for c in begun if c.numbers is not None), None),
    parameters=facts.get('parameters'),
    rate=_number(settings, 'LEARNING_RATE'),
    wanted=_whole(settings, 'STEPS'),
    seeds=tuple(seeds),
    metric=metric,
    best=best,
    seconds=seconds(begun),
    settings=settings,
    histories=tuple(begun),
    predictions=tuple(p for p in predictions if os.path.isfile(p)),
    labels=tuple(labels) if labels else None,
  )


def _whole(settings: Mapping[str, str], name: str) -> int | None:
  found = description.value_of(settings, name)
  if found is not None and not isinstance(found, int):
    raise UnreadableError(f'{CONFIG}: {name} is {found!r}; expected a whole number')
  return found


def _seeds(settings: Mapping[str, str]) -> tuple[int, ...]:
  found = description.value_of(settings, 'SEEDS') or ()
  if not isinstance(found, list | tuple) or not all(isinstance(seed, int) for seed in found):
    raise UnreadableError(f'{CONFIG}: SEEDS is {found!r}; expected a list of whole numbers')
  return tuple(found)


def _number(settings: Mapping[str, str], name: str) -> float | None:
  found = description.value_of(settings, name)
  return found if isinstance(found, int | float) else None


def _task(settings: Mapping[str, str]) -> str:
  """The task according to the configuration, before any file names it."""
  task = description.value_of(settings, 'TASK')
  if task:
    return task if isinstance(task, str) else '+'.join(task)
  data = description.value_of(settings, 'DATA')
  return pathlib.PurePath(data).name.split('.')[0] if isinstance(data, str) else '-'


def _last_part(path: Any) -> str | None:
  return pathlib.PurePath(path).name if isinstance(path, str) else None


def _population(run_folder: RunFolder) -> list[Run]:
  """A run for each configuration, with its seeds, and the vote of all."""
  place, name, settings, found, unreadable = run_folder
  said = {p['name']: (own, p) for own in found.values() for p in own.prompts}
  below = [p.name for p in sorted(place.iterdir()) if SEED.search(p.name) and p.is_dir()]
  members = list(dict.fromkeys([*said, *below]))
  cells: dict[str, list[str]] = {}
  for member in members:
    cells.setdefault(SEED.sub('', member), []).append(member)
  wanted = _seeds(settings)
  runs = []
  for cell, names in cells.items():
    own = said[names[0]][0] if names[0] in said else None
    ends = {m: said[m][1]['why'] for m in names if m in said}
    begun = [
      read_history(place / m, int(SEED.search(m)[1]), unreadable, ends.get(m))  # type: ignore[index]
      for m in names
    ]
    of_cell = settings_of(settings, begun)
    title = f'{name}/{cell}' if cell else name
    seeds = wanted or tuple(c.seed for c in begun)
    run = _trained(place, title, 'population', of_cell, begun, seeds, own)
    each = [said[m][1]['scores'] for m in names if m in said]
    lines = said[names[0]][1]['on_validation'] if names[0] in said else {}
    run = dataclasses.replace(run, on_validation=lines)
    runs.append(_with_scores(run, [scores for scores in each if scores]))
  return runs + [_vote(runs[0], place, name, own, s) for own in found.values() for s in own.tuned
                 if s.startswith(VOTE)]  # fmt: skip


def _vote(member: Run, place: pathlib.Path, name: str, own: Results, system: str) -> Run:
  return Run(
    folder=place,
    name=f'{name}/vote',
    verb='population',
    task=own.task,
    split=own.split,
    model=member.model,
    method=system,
    parameters=member.parameters,
    scores=own.systems[system].scores,
  )


def _eval(run_folder: RunFolder) -> list[Run]:
  """A run for each system that was evaluated: prompts, their ensembles, or the bare model."""
  place, name, settings, found, unreadable = run_folder
  given = description.value_of(settings, 'PROMPT_FILE')
  files = (given,) if isinstance(given, str) else tuple(given or ())
  run = Run(
    folder=place,
    name=name,
    verb='eval',
    task=_task(settings),
    model=_last_part(description.value_of(settings, 'MODEL')),
    status=UNFINISHED,
    settings=settings,
  )
  runs = []
  for own in found.values():
    measured = files if own.files is None else own.files
    facts = [_prompt(pathlib.Path(file), unreadable) for file in measured]
    for number, (system, each) in enumerate(own.systems.items()):
      if number >= len(facts) > 0 and _summary(system):
        continue
      what = dataclasses.replace(
        run,
        name=name if len(own.systems) == 1 else f'{name}/{system}',
        task=own.task,
        split=own.split,
        scores=each.scores,
        intervals=each.intervals,
        status=FINISHED if any(each.scores) else UNMEASURED,
      )
      runs.append(_measured(what, system, number, facts))
  return runs or [run]


def _summary(system: str) -> bool:
  """Whether a system only summarises the others in an evaluation of several prompts."""
  return system == 'mean' or system.startswith('best: ')


def _prompt(path: pathlib.Path, unreadable: list[Unreadable]) -> Measured:
  """Metadata and trained parameters of a prompt file that was evaluated, if it still exists."""
  if os.path.isfile(path):
    return of_file(path, unreadable) or ({}, None)
  unreadable.append(Unreadable(path, 'this file was evaluated, but does not exist any more'))
  return {}, None


def _measured(run: Run, system: str, number: int, measured: Sequence[Measured]) -> Run:
  """The run with the metadata of its prompt file; ensembles come after the single prompts."""
  said, numbers = measured[min(number, len(measured) - 1)] if measured else ({}, 0)
  together = bool(measured) and number >= len(measured)
  if together:
    file = ENSEMBLES.get(system)
  else:
    file = PREDICTIONS if len(measured) < 2 else f'predictions-{number + 1}.jsonl'
  path = run.folder / (file or '')
  return dataclasses.replace(
    run,
    model=said.get('base_model') or run.model,
    method=system if together else method_of(said, {}) if measured else 'untuned',
    rows=None if together else said.get('length') or None,
    trained=None if together else numbers,
    parameters=said.get('parameters'),
    predictions=(path,) if os.path.isfile(path) else (),
    labels=tuple(said['labels']) if said.get('labels') else None,
  )


def _pretrain(run_folder: RunFolder) -> list[Run]:
  """A run for each stage that has steps."""
  place, name, settings, _, unreadable = run_folder
  runs = []
  for stage, (steps, rate) in PRETRAINING.items():
    wanted = _whole(settings, steps)
    if not wanted:
      continue
    seed = _whole(settings, 'SEED') or 0
    own = read_history(place / STAGES / stage, seed, unreadable)
    evaluated = own.of('eval')
    last = {k: float(v) for k, v in evaluated[-1].items() if k not in ABOUT} if evaluated else {}
    done = own.step >= wanted
    runs.append(
      Run(
        folder=place / STAGES / stage,
        name=f'{name}/{STAGES}/{stage}',
        verb='pretrain',
        task=stage,
        split='held out',
        model=own.facts.get('base_model') or description.value_of(settings, 'NAME') or place.name,
        method='pretraining',
        trained=own.numbers,
        parameters=own.numbers,
        rate=_number(settings, rate),
        wanted=wanted,
        seeds=(seed,),
        scores=(last,) if done and last else (),
        metric=next(iter(last), None),
        seconds=seconds([own]),
        status=FINISHED if done else UNFINISHED,
        settings=dict(settings),
        histories=(own,) if own.records else (),
      )
    )
  return runs
