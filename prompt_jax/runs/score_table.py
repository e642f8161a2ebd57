"""The table at the end of a run, of train, population and eval."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.data.example import Example, Task
from prompt_jax.evaluation.bootstrap import RESAMPLES, interval
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.evaluation.metrics import Scores
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.evaluation.suite import Suite
from prompt_jax.runs.results import SystemScores
from prompt_jax.training.records import summarize


def measured(
  name: str,
  evaluator: Evaluator | Suite,
  examples: Sequence[Example],
  scores: Scores,
  predictions: Sequence[Prediction],
  *,
  resamples: int,
  calibrated: bool,
) -> SystemScores:
  """A line with everything that is known of some predictions.

  Args:
    name: of the system.
    evaluator: what has measured them.
    examples: what they answer.
    scores: of them.
    predictions: in the order of the examples.
    resamples: of the bootstrap; 0 for no intervals.
    calibrated: whether their scores are log-probabilities of labels.
  """
  if not scores:
    return SystemScores(name, [{}])
  found = evaluator.distribution(examples, predictions, resamples) if resamples else {}
  calibration = evaluator.calibration(examples, predictions) if calibrated else {}
  of_many = isinstance(evaluator, Suite)
  further = {
    f'{task}/{key}' if of_many else key: value
    for task, of_task in calibration.items()
    for key, value in (('ece', of_task.ece), ('brier', of_task.brier))
  }
  intervals = {key: interval(values) for key, values in found.items()}
  return SystemScores(name, [{**scores, **further}], intervals=intervals, calibration=calibration)


def with_intervals(
  name: str,
  evaluator: Evaluator | Suite,
  examples: Sequence[Example],
  scores: Scores,
  predictions: Sequence[Prediction],
  trained: int | None = None,
) -> SystemScores:
  """`measured` without calibration, and the number of parameters that were trained."""
  found = measured(
    name, evaluator, examples, scores, predictions, resamples=RESAMPLES, calibrated=False
  )
  return dataclasses.replace(found, trained=trained)


def print_scores(
  systems: Sequence[SystemScores], title: str, console: Console, parts: Sequence[Task] = ()
) -> None:
  """Prints one line a system and one column a score; "-" where a system has none.

  Of several tasks (`parts`) there are many scores: then one line a score, one column a system.
  """
  names = list(dict.fromkeys(name for s in reversed(systems) for name in s.scores[0]))
  table = Table(title=title, title_justify='left', title_style='bold')
  if parts:
    table.add_column('task/score', no_wrap=True)  # a cropped name is none
    for found in systems:
      table.add_column(found.name, justify='right')
    for name in names:
      table.add_row(name, *(_cell(s, name) for s in systems))
    console.print(table)
    return
  counted = any(found.trained is not None for found in systems)
  table.add_column('system')
  for name in names + ['trained parameters'] * counted:
    table.add_column(name, justify='right')
  for found in systems:
    trained = ['-' if found.trained is None else f'{found.trained:,}'] * counted
    table.add_row(found.name, *(_cell(found, name) for name in names), *trained)
  console.print(table)


def _cell(found: SystemScores, name: str) -> str:
  """A score, with its spread over seeds or its interval."""
  value = summarize(found.scores).get(name)
  if value is None:
    return '-'
  if value.n > 1:
    return f'{value.mean:.1f} ± {value.std:.1f}'
  low, high = found.intervals.get(name, (None, None))
  return f'{value.mean:.1f}' if low is None else f'{value.mean:.1f} ({low:.1f} to {high:.1f})'


def write_scores(path: pathlib.Path, systems: Sequence[SystemScores], **facts: Any) -> None:
  """The same as JSON: {"systems": {name: {"scores": [...], "trained": n}}, ...}."""
  scores = {
    found.name: {'scores': [dict(s) for s in found.scores], 'trained': found.trained}
    for found in systems
  }
  intervals = {s.name: {k: list(v) for k, v in s.intervals.items()} for s in systems if s.intervals}
  reliability = {
    s.name: {task: [b._asdict() for b in found.bins] for task, found in s.calibration.items()}
    for s in systems
    if s.calibration
  }
  of_systems = {'systems': scores, 'intervals': intervals, 'reliability': reliability}
  write_atomically(path, (json.dumps({**facts, **of_systems}, indent=2) + '\n').encode())
