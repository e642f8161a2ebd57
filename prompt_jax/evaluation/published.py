"""Averages over the tasks of a benchmark as its makers publish them.

Every task counts once, with the mean of its metrics (Wang et al. 2018, section 4; 2019, section
3.2). The diagnostic sets (ax, axb, axg) do not count. MNLI's matched and mismatched examples are
one task. There is an average only where all of its tasks are measured.
"""

from collections.abc import Mapping, Sequence

# Average -> its tasks, each by the names that may stand for it; what is there of them is averaged.
MNLI = ('glue_mnli', 'glue_mnli_matched', 'glue_mnli_mismatched')
WITHOUT_WNLI: tuple[tuple[str, ...], ...] = (
  *((f'glue_{name}',) for name in ('cola', 'sst2', 'mrpc', 'qqp', 'stsb', 'qnli', 'rte')),
  MNLI,
)
AVERAGES: Mapping[str, tuple[tuple[str, ...], ...]] = {
  'glue': (*WITHOUT_WNLI, ('glue_wnli',)),
  # T5 and prompt tuning leave WNLI out (Raffel et al. 2020, section 2.3).
  'glue_without_wnli': WITHOUT_WNLI,
  'super_glue': tuple(
    (f'super_glue_{name}',)
    for name in ('boolq', 'cb', 'copa', 'multirc', 'record', 'rte', 'wic', 'wsc')
  ),
}


def names(tasks: Sequence[str]) -> list[str]:
  """The averages that measuring some tasks gives."""
  known = {task.removeprefix('taskless_') for task in tasks}
  found = [name for name, parts in AVERAGES.items() if all(known & set(part) for part in parts)]
  # Where WNLI was measured it counts.
  return [name for name in found if name != 'glue_without_wnli' or 'glue' not in found]


def averages(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
  """{average: percent} of benchmarks all of whose tasks are there.

  Args:
    scores: task, with or without "taskless_" -> its scores in percent.
  """
  of_task = {
    task.removeprefix('taskless_'): _mean(list(found.values()))
    for task, found in scores.items()
    if found
  }
  return {
    name: _mean([_mean([of_task[t] for t in part if t in of_task]) for part in AVERAGES[name]])
    for name in names(list(of_task))
  }


def _mean(values: Sequence[float]) -> float:
  return sum(values) / len(values)
