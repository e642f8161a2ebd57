"""The table of an evaluation: scores, their intervals, and how far confidence can be trusted."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from prompt_jax.data.example import Example, Task
from prompt_jax.evaluation.bootstrap import interval
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.evaluation.metrics import Scores
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.evaluation.suite import Suite
from prompt_jax.runs.results import SystemScores


def system(
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


def show(
  systems: Sequence[SystemScores], title: str, console: Console, parts: Sequence[Task] = ()
) -> None:
  """Prints one line a system and one column a score; of several tasks the other way round."""
  names = list(dict.fromkeys(name for s in systems for name in s.scores[0]))
  table = Table(title=title, title_justify='left', title_style='bold')
  if parts:
    table.add_column('task/score')
    for s in systems:
      table.add_column(s.name, justify='right')
    for name in names:
      table.add_row(name, *(_cell(s, name) for s in systems))
  else:
    table.add_column('system')
    for name in names:
      table.add_column(name, justify='right')
    for s in systems:
      table.add_row(s.name, *(_cell(s, name) for name in names))
  console.print(table)


def _cell(found: SystemScores, name: str) -> str:
  if name not in found.scores[0]:
    return '-'
  value = f'{found.scores[0][name]:.1f}'
  if name not in found.intervals:
    return value
  low, high = found.intervals[name]
  return f'{value} ({low:.1f} to {high:.1f})'


def facts(systems: Sequence[SystemScores]) -> dict[str, Any]:
  """What results.json has beside the scores: intervals and bins of reliability, by system."""
  intervals = {s.name: {k: list(v) for k, v in s.intervals.items()} for s in systems if s.intervals}
  reliability = {
    s.name: {task: [b._asdict() for b in found.bins] for task, found in s.calibration.items()}
    for s in systems
    if s.calibration
  }
  return {'intervals': intervals, 'reliability': reliability}
