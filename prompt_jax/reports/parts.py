"""Runs of several tasks: the score of each, and the gap of transfer between languages."""

import dataclasses
from collections.abc import Sequence

from prompt_jax.reports.columns import ReportTable, Value, of_one_task
from prompt_jax.reports.runs import Run
from prompt_jax.training.records import MeanStd, mean_std

GAP = 'gap'  # of all: a score of its own, see `evaluation.suite`
OTHERS = 'mean of the others'


@dataclasses.dataclass(frozen=True)
class Part:
  """One of several tasks in a run.

  Attributes:
    name: of the task.
    metric: name of its main score.
    score: over the seeds.
    gap: the score of the task that was trained on minus this one, over the seeds; None for that
      task itself, and where all were trained on.
  """

  name: str
  metric: str
  score: MeanStd
  gap: MeanStd | None


def parts(run: Run) -> list[Part]:
  """The tasks of a run with their first scores; none for a run of one task."""
  first: dict[str, str] = {}  # task -> its score's name
  for name in run.metrics:
    if of_one_task(name):
      first.setdefault(name.rpartition('/')[0], name)
  source = first.get(run.source or '')
  found = []
  for task, name in first.items():
    pairs = (
      [(s[source], s[name]) for s in run.scores if source in s and name in s] if source else []
    )
    gap = mean_std([a - b for a, b in pairs]) if pairs and name != source else None
    found.append(Part(task, name.rpartition('/')[2], run.metrics[name], gap))
  return found


def titles(tasks: Sequence[str], source: str | None) -> list[str]:
  """Short names of tasks: of one data set, only the language or domain."""
  short = [task.partition('.')[2] if kind(tasks) != 'task' else task for task in tasks]
  return [f'{name} (trained on)' if t == source else name
          for name, t in zip(short, tasks, strict=True)]  # fmt: skip


def kind(tasks: Sequence[str]) -> str:
  """The name for the parts of a run."""
  one_set = len({name.partition('.')[0] for name in tasks}) == 1
  return 'language or domain' if one_set and all('.' in name for name in tasks) else 'task'


def group_by_tasks(runs: Sequence[Run]) -> list[list[Run]]:
  """The runs of several tasks, grouped by tasks and split."""
  groups: dict[tuple[str, str | None], list[Run]] = {}
  for run in runs:
    if parts(run):
      groups.setdefault((run.task, run.split), []).append(run)
  return list(groups.values())


def score_table(runs: Sequence[Run]) -> ReportTable:
  """One row per task, with the score of each run and, for tasks not trained on, the gap.

  Args:
    runs: of the same tasks, one of `group_by_tasks`.
  """
  each = [{part.name: part for part in parts(run)} for run in runs]
  tasks = list(dict.fromkeys(name for found in each for name in found))
  transfer = any(part.gap for found in each for part in found.values())
  head = kind(tasks)
  rows: list[dict[str, Value]] = []
  for task, title in zip(tasks, titles(tasks, runs[0].source), strict=True):
    row: dict[str, Value] = {head: title}
    for run, found in zip(runs, each, strict=True):
      part = found.get(task)
      row[run.name] = part.score if part else None
      if transfer:
        row[f'{run.name}: {GAP}'] = part.gap if part else None
    rows.append(row)
  if transfer:
    last: dict[str, Value] = {head: OTHERS}
    for run in runs:
      last[run.name] = others(run)
      last[f'{run.name}: {GAP}'] = run.metrics.get(GAP)
    rows.append(last)
  return ReportTable(tuple(rows[0]), tuple(rows))


def others(run: Run) -> MeanStd:
  """Mean score of the tasks that were not trained on, over the seeds."""
  names = [f'{p.name}/{p.metric}' for p in parts(run) if p.name != run.source]
  return mean_std([sum(s[n] for n in names) / len(names) for s in run.scores])


def long_table(runs: Sequence[Run]) -> ReportTable:
  """One row for each run and task, for other programs."""
  rows: list[dict[str, Value]] = [
    {'folder': run.name, 'task': run.task, 'split': run.split, 'part': part.name,
     'metric': part.metric, 'score': part.score, 'gap': part.gap}
    for run in runs
    for part in parts(run)
  ]  # fmt: skip
  return ReportTable(('folder', 'task', 'split', 'part', 'metric', 'score', 'gap'), tuple(rows))
