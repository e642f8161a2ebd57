"""The table at the end of a run."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.data.baseline import bag_of_words, majority
from prompt_jax.data.example import Example, Task
from prompt_jax.evaluation.suite import GAP, MEAN, summarise
from prompt_jax.runs.results import SystemScores
from prompt_jax.training.records import MeanStd, summarize

MAJORITY = 'majority class'
WORDS = 'TF-IDF + logistic regression'


def baselines(train: Sequence[Example], test: Sequence[Example], task: Task) -> list[SystemScores]:
  """What needs no model of ours; none for a task without labels.

  Of several tasks each is learned from its own examples, or those of the one trained on.
  """
  if not task.parts:
    found = {MAJORITY: _majority(train, test), WORDS: _words(train, test)}
  else:
    each: dict[str, dict[str, dict[str, float]]] = {MAJORITY: {}, WORDS: {}}
    for part in task.parts:
      learned = [e for e in train if e.task == (task.source or part.name)]
      asked = [e for e in test if e.task == part.name]
      each[MAJORITY][part.name] = _majority(learned, asked)
      each[WORDS][part.name] = _words(learned, asked)
    found = {name: _summary(scores, task) for name, scores in each.items()}
  return [SystemScores(name, [scores]) for name, scores in found.items() if scores]


def _summary(scores: Mapping[str, Mapping[str, float]], task: Task) -> dict[str, float]:
  """Accuracies of the parts; their mean too if the mean of a model is over the same scores."""
  alike = all(scores[p.name] and p.score is None and p.metrics[0] == 'accuracy' for p in task.parts)
  found = summarise(scores, task.source)
  return found if alike else {n: v for n, v in found.items() if n not in (MEAN, GAP)}


def _majority(train: Sequence[Example], test: Sequence[Example]) -> dict[str, float]:
  return {'accuracy': 100 * majority(train, test)} if _labelled(train, test) else {}


def _words(train: Sequence[Example], test: Sequence[Example]) -> dict[str, float]:
  if not _labelled(train, test) or len({e.label for e in train}) < 2:
    return {}
  score = bag_of_words(train, test)
  return {} if score is None else {'accuracy': 100 * score}


def _labelled(train: Sequence[Example], test: Sequence[Example]) -> bool:
  return bool(train and test) and not any(e.label is None for e in (*train, *test))


def print_scores(
  systems: Sequence[SystemScores], title: str, console: Console, parts: Sequence[Task] = ()
) -> None:
  """Prints one line a system and one column a score; "-" where a system has none.

  Of several tasks (`parts`) there are many scores: then one line a score, one column a system.
  """
  if parts:
    _print_parts(systems, title, console)
    return
  names = list(dict.fromkeys(name for found in systems for s in found.scores for name in s))
  table = Table(title=title, title_justify='left', title_style='bold')
  table.add_column('system')
  for name in names:
    table.add_column(name, justify='right')
  table.add_column('trained parameters', justify='right')
  for found in systems:
    values = summarize(found.scores)
    cells = [_cell(values.get(name)) for name in names]
    table.add_row(found.name, *cells, '-' if found.trained is None else f'{found.trained:,}')
  console.print(table)


def _print_parts(systems: Sequence[SystemScores], title: str, console: Console) -> None:
  table = Table(title=title, title_justify='left', title_style='bold')
  table.add_column('task/score', no_wrap=True)  # a cropped name is none
  summaries = [summarize(found.scores) for found in systems]
  for found in systems:
    table.add_column(found.name, justify='right')
  for name in dict.fromkeys(name for s in reversed(summaries) for name in s):
    table.add_row(name, *(_cell(s.get(name)) for s in summaries))
  console.print(table)


def _cell(value: MeanStd | None) -> str:
  if value is None:
    return '-'
  return f'{value.mean:.1f}' if value.n == 1 else f'{value.mean:.1f} ± {value.std:.1f}'


def write_scores(path: pathlib.Path, systems: Sequence[SystemScores], **facts: Any) -> None:
  """The same as JSON: {"systems": {name: {"scores": [...], "trained": n}}, ...}."""
  scores = {
    found.name: {'scores': [dict(s) for s in found.scores], 'trained': found.trained}
    for found in systems
  }
  write_atomically(path, (json.dumps({**facts, 'systems': scores}, indent=2) + '\n').encode())
