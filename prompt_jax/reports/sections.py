"""The section of a report for each task: plots, scores of its parts, and mistakes."""

import dataclasses
from collections.abc import Sequence

from prompt_jax.reports import answers, columns, parts, plots, text
from prompt_jax.reports.answers import MOST_LABELS, Answer
from prompt_jax.reports.columns import ReportTable
from prompt_jax.reports.plots import Picture
from prompt_jax.reports.runs import FoundRuns, Reference, Run, Unreadable
from prompt_jax.training.records import mean_std

MISTAKES = 8  # shown of a run


@dataclasses.dataclass(frozen=True)
class RunAnswers:
  """The answers of one run.

  Attributes:
    name: of the run.
    said: the number of answers, and what is not shown.
    pictures: confusion matrices.
    mistakes: those with the highest confidence.
  """

  name: str
  said: str
  pictures: tuple[Picture, ...]
  mistakes: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class Section:
  """One task.

  Attributes:
    task: its name.
    headlines: the best run of each split beside the baselines.
    pictures: curves and comparisons.
    tables: scores of its parts, of a mixture or of several languages.
    answers: of each run that wrote predictions.
  """

  task: str
  headlines: tuple[str, ...]
  pictures: tuple[Picture, ...]
  tables: tuple[ReportTable, ...]
  answers: tuple[RunAnswers, ...]


def sections(
  found: FoundRuns, group_by: Sequence[str] = ()
) -> tuple[tuple[Section, ...], tuple[Unreadable, ...]]:
  """A section for each task, and the predictions that cannot be read.

  Args:
    found: all runs, in the order in which they are shown.
    group_by: columns whose values are compared in a plot, as methods are.
  """
  unreadable: list[Unreadable] = []
  tasks = dict.fromkeys(run.task for run in found.runs)
  made = [
    _section(
      task, [r for r in found.runs if r.task == task], found.references, group_by, unreadable
    )
    for task in tasks
  ]
  return tuple(made), tuple(unreadable)


def _section(
  task: str,
  runs: Sequence[Run],
  references: Sequence[Reference],
  group_by: Sequence[str],
  unreadable: list[Unreadable],
) -> Section:
  pictures, headlines = plots.curves(runs, task), []
  by = dict.fromkeys([('method',), *([tuple(group_by)] if group_by else [])])
  for split in dict.fromkeys(run.split for run in runs if run.scores):
    of_split = [run for run in runs if run.split == split]
    beside = [r for r in references if r.task == task and r.split == split]
    headlines.append(_headline(of_split, beside))
    for names in by:
      compared = plots.by(of_split, beside, task, split, names)
      pictures += [compared] if compared else []
    pictures += plots.by_size(of_split, task, split)
  groups = parts.group_by_tasks(runs)
  pictures += [p for group in groups for p in plots.by_part(group)]
  said = [_answers(run, unreadable) for run in runs if run.predictions]
  tables = tuple(map(parts.score_table, groups))
  return Section(task, tuple(headlines), tuple(pictures), tables, tuple(said))


def _headline(runs: Sequence[Run], references: Sequence[Reference]) -> str:
  """The run with the highest main score, its interval, and the baselines by the same score."""
  scored = [(run, *run.score) for run in runs if run.score]
  metric = scored[0][1]
  run, _, score = max((s for s in scored if s[1] == metric), key=lambda s: s[2].mean)
  said = f'{metric} {text.shown(metric, score)}'
  if run.interval:
    low, high = run.interval
    said += f' (95 % interval {low:.1f} to {high:.1f})'
  said += f' on {run.split}: {run.method or run.verb}, {run.name}'
  said += f', the best of {len(runs)} runs' if len(runs) > 1 else ''
  found = {r.system: dict(r.scores)[metric] for r in references if metric in dict(r.scores)}
  beside = ', '.join(f'{name} {text.shown(metric, mean_std([v]))}' for name, v in found.items())
  return f'{said}. Baselines: {beside}.' if beside else f'{said}.'


def _answers(run: Run, unreadable: list[Unreadable]) -> RunAnswers:
  found = [a for path in run.predictions for a in answers.read(path, unreadable)]
  files = len(run.predictions)
  said = f'{len(found)} answer{"" if len(found) == 1 else "s"}' + (
    f' of {files} seeds' if files > 1 else ''
  )
  judged = [a for a in found if a.correct is not None]
  said += f', {sum(a.correct is False for a in judged)} wrong' if judged else ', none scored'
  most = max((len(a.labels) for a in found), default=0)
  if most > MOST_LABELS:
    said += f'; too many labels ({most}) for a confusion matrix'
  confusions = answers.confusions(run, found)
  pictures = tuple(plots.confusion(c, run) for c in confusions)
  return RunAnswers(run.name, said, pictures, tuple(answers.worst(found, MISTAKES)))


def references(found: FoundRuns) -> ReportTable:
  """Baselines without tuning, one row per system and task."""
  rows: list[dict[str, columns.Value]] = [
    {'task': r.task, 'split': r.split, 'system': r.system, 'model': r.model,
     **{n: mean_std([v]) for n, v in r.scores if not columns.of_one_task(n)}}
    for r in sorted(found.references, key=lambda r: r.task)
  ]  # fmt: skip
  names = tuple(dict.fromkeys(n for row in rows for n in row))
  return ReportTable(names, tuple({n: row.get(n) for n in names} for row in rows))
