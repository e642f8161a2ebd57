"""Prompts of one model evaluated in one pass: each by itself, and their vote and mean."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_jax import loading
from prompt_jax.data.example import Example, Lengths, Task
from prompt_jax.errors import UserError
from prompt_jax.evaluation import suite
from prompt_jax.evaluation.ensemble import average, vote
from prompt_jax.evaluation.evaluator import Advance, Evaluator
from prompt_jax.evaluation.metrics import Scores
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.features import Numbers
from prompt_jax.runs.results import SystemScores
from prompt_jax.stacking import group_by_structure

# What evaluates a task, and what it found: scores and predictions.
TaskEvaluator = Evaluator | suite.Suite
Scored = tuple[Scores, list[Prediction]]
VOTE, AVERAGE = 'majority vote', 'mean probability'
FILES = {VOTE: 'vote', AVERAGE: 'average'}


def task_of_all(
  choose: Callable[[Mapping[str, Any]], Task],
  loaded: Sequence[loading.Tuned],
  files: Sequence[str],
) -> Task:
  """The task that all prompts are evaluated on.

  Args:
    choose: from what a prompt file says of itself to the task; a file's labels are those that the
      prompt was tuned on.
    loaded: the prompts.
    files: where they come from.

  Raises:
    UserError: prompts that would answer in different words.
  """
  task = choose(loaded[0].metadata)
  answers = lambda ready: tuple(ready.metadata.get(key) for key in ('labels', 'words', 'columns'))
  for file, ready in zip(files[1:], loaded[1:], strict=False):
    if answers(ready) == answers(loaded[0]):
      continue
    try:
      other = choose(ready.metadata)
    except UserError:  # its labels are not those of the file
      other = None
    if other is not None and other.columns != task.columns:
      raise UserError(
        f'{file} reads the columns {other.columns}, and {files[0]} {task.columns}. Evaluate them '
        'apart, or name the columns.',
        ['text', 'label', 'inputs', 'targets'],
      )
    if other is None or (other.labels, other.words) != (task.labels, task.words):
      raise UserError(
        f'{file} was tuned on the labels {ready.metadata.get("labels")}, and {files[0]} on '
        f'{loaded[0].metadata.get("labels")}: on this file they answer in different words. '
        'Evaluate them apart.'
      )
  return task


def names(files: Sequence[str]) -> list[str]:
  """Short names that tell files apart: without the folders that all of them share."""
  if len(files) < 2:
    return list(files)
  shared = os.path.commonpath([os.path.dirname(os.path.abspath(f)) for f in files])
  return [pathlib.Path(os.path.abspath(f)).relative_to(shared).as_posix() for f in files]


def longest(given: Sequence[Lengths]) -> Lengths:
  """The longest of what prompts were trained with, so that all read the same."""
  return Lengths(max(n.inputs for n in given), max(n.targets for n in given))


def groups(loaded: Sequence[loading.Tuned], features: Sequence[Numbers]) -> list[list[int]]:
  """Which prompts are of one method and shape, and so can share every batch."""
  own = [{**r.variables, 'params': r.variables['params'].get('prompt')} for r in loaded]
  ids = [repr(found) for found in features]
  return group_by_structure(own, [(r.model, i) for r, i in zip(loaded, ids, strict=True)])


def evaluate(
  loaded: Sequence[loading.Tuned],
  groups: Sequence[Sequence[int]],
  task: Task,
  features: Sequence[Numbers],
  examples: Sequence[Example],
  advance: Advance,
  **options: Any,
) -> tuple[TaskEvaluator, list[Scored]]:
  """Scores and predictions of each prompt; those of a group share every batch.

  Args:
    loaded: at least one, on the same backbone.
    groups: of them, by number.
    task: what is measured.
    features: of each prompt, see `Evaluator`.
    examples: of the task.
    advance: called with the size of each batch, once for a group.
    options: further ones of `Evaluator`.

  Returns:
    An evaluator of the task, and what each prompt has reached.
  """
  evaluators: list[TaskEvaluator] = []
  scored: dict[int, Scored] = {}
  for group in groups:
    evaluator = suite.evaluator(
      loaded[group[0]].model,
      loaded[0].backbone.vocabulary,
      task,
      features=features[group[0]],
      **options,
    )
    found = evaluator.each([loaded[k].variables for k in group], examples, advance)
    scored |= dict(zip(group, found, strict=True))
    evaluators.append(evaluator)
  return evaluators[0], [scored[k] for k in range(len(loaded))]


def combined(
  evaluator: TaskEvaluator, examples: Sequence[Example], scored: Sequence[Scored]
) -> dict[str, Scored]:
  """The majority vote of several prompts and, of ranked labels, their mean probability."""
  members = [predictions for _, predictions in scored]
  found = {VOTE: vote(members)}
  if evaluator.ranks:
    found[AVERAGE] = average(members)
  return {name: (evaluator.measure(examples, chosen), chosen) for name, chosen in found.items()}


def mean_and_best(systems: Sequence[SystemScores], task: Task) -> list[SystemScores]:
  """The mean of the prompts' scores, and the one that is best by the score that selects.

  Nothing where no target is known.
  """
  if not all(s.scores[0] for s in systems):
    return []
  named = suite.scores_of(task)[0]
  # A score function of the task's own has names of its own.
  key = named if named in systems[0].scores[0] else next(iter(systems[0].scores[0]))
  best = max(systems, key=lambda s: s.scores[0][key])
  names = best.scores[0]
  mean = {name: sum(s.scores[0][name] for s in systems) / len(systems) for name in names}
  return [SystemScores('mean', [mean]), SystemScores(f'best: {best.name}', best.scores)]
