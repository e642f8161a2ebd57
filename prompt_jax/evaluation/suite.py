"""Several tasks in one evaluation: each with its own labels and metrics, and their mean."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_jax.data.example import Example, Task
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError, unknown
from prompt_jax.evaluation import metrics
from prompt_jax.evaluation.bootstrap import RESAMPLES
from prompt_jax.evaluation.calibration import Calibration
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.evaluation.predictions import Advance, Prediction
from prompt_jax.inference import decode
from prompt_jax.prompted import Prompted

# The scores of a suite that belong to no single task.
MEAN = 'mean'
GAP = 'gap'
# Benchmark average -> its tasks, each by its possible names; those present are averaged.
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


class Suite:
  """Evaluates a model on the parts of a task, with the interface of an `Evaluator`.

  Parts with the same labels share their batches, so a data set in forty languages compiles as often
  as one.
  """

  def __init__(self, model: Prompted, vocabulary: Vocabulary, task: Task, **options: Any):
    """Sets what every evaluation shares.

    Args:
      model: the model and its prompt.
      vocabulary: what the examples were tokenised with.
      task: whose `parts` are evaluated.
      options: `Evaluator`'s.
    """
    self._task = task
    self._evaluators = {p.name: Evaluator(model, vocabulary, p, **options) for p in task.parts}
    # First part -> the parts that share its compiled function.
    self._sharing: dict[str, list[str]] = {}
    leaders: dict[Any, str] = {}
    for part in task.parts:
      leader = leaders.setdefault((part.labels, part.postprocess, part.right), part.name)
      self._sharing.setdefault(leader, []).append(part.name)

  @property
  def ranks(self) -> bool:
    """Whether predictions of all tasks hold the scores of all labels."""
    return all(evaluator.ranks for evaluator in self._evaluators.values())

  def __call__(
    self,
    variables: decode.Variables,
    examples: Sequence[Example],
    advance: Advance = lambda count: None,
  ) -> tuple[metrics.Scores, list[Prediction]]:
    """{"mean", "TASK/METRIC", ...} in percent, and the predictions in order.

    "mean" is over the tasks' first scores. Where the task has a source, "gap" is its score
    minus the mean of the others: the loss in transfer.

    Raises:
      UserError: no examples, or one that belongs to no part.
    """
    return self.each([variables], examples, advance)[0]

  def each(
    self,
    variables: Sequence[decode.Variables],
    examples: Sequence[Example],
    advance: Advance = lambda count: None,
  ) -> list[tuple[metrics.Scores, list[Prediction]]]:
    """The same for several prompts, as `Evaluator.each`."""
    if not examples:
      raise UserError('There are no examples to evaluate; check the split or the limit on them.')
    numbers = self._numbers(examples)
    found: list[dict[int, Prediction]] = [{} for _ in variables]
    for leader, names in self._sharing.items():
      chosen = [i for name in names for i in numbers[name]]
      if chosen:
        predict = self._evaluators[leader].predict
        rows = predict(variables, [examples[i] for i in chosen], advance)
        for at, of_prompt in zip(found, rows, strict=True):
          at |= dict(zip(chosen, of_prompt, strict=True))
    results = []
    for at in found:
      named = [dataclasses.replace(at[i], task=e.task) for i, e in enumerate(examples)]
      results.append((self.measure(examples, named), named))
    return results

  def measure(
    self, examples: Sequence[Example], predictions: Sequence[Prediction]
  ) -> metrics.Scores:
    """The scores of existing predictions."""
    scores = {}
    for name, mine in self._numbers(examples).items():
      if mine:
        of_task = [examples[i] for i in mine]
        scores[name] = self._evaluators[name].measure(of_task, [predictions[i] for i in mine])
    return summarise(scores, self._task.source)

  def distribution(
    self,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    resamples: int = RESAMPLES,
    seed: int = 0,
  ) -> dict[str, np.ndarray]:
    """As `Evaluator.distribution`; each task is resampled separately."""
    found = {}
    for at, (name, mine) in enumerate(self._numbers(examples).items()):
      if mine:
        found[name] = self._evaluators[name].distribution(
          [examples[i] for i in mine], [predictions[i] for i in mine], resamples, [seed, at]
        )
    if not all(found.values()):  # no mean without all of them
      return {f'{n}/{k}': v for n, scores in found.items() for k, v in scores.items()}
    return summarise(found, self._task.source)

  def calibration(
    self, examples: Sequence[Example], predictions: Sequence[Prediction]
  ) -> dict[str, Calibration]:
    """As `Evaluator.calibration`, for every task whose labels were ranked."""
    found: dict[str, Calibration] = {}
    for name, mine in self._numbers(examples).items():
      if mine:
        of_task = [examples[i] for i in mine]
        found |= self._evaluators[name].calibration(of_task, [predictions[i] for i in mine])
    return found

  def _numbers(self, examples: Sequence[Example]) -> dict[str, list[int]]:
    """The indices of the examples of each part."""
    numbers: dict[str, list[int]] = {name: [] for name in self._evaluators}
    for i, example in enumerate(examples):
      if example.task not in numbers:
        raise unknown('task of an example', example.task, numbers)
      numbers[example.task].append(i)
    return numbers


def summarise(scores: Mapping[str, Mapping[str, Any]], source: str | None = None) -> dict[str, Any]:
  """The scores of several tasks as one mapping.

  Args:
    scores: task -> its scores, the main score first; numbers, or arrays of resamples.
    source: the task that was trained on, if the others were not.

  Returns:
    {"mean", "gap" (with a source and others), `averages`, "TASK/METRIC", ...}.
  """
  first = {name: next(iter(found.values())) for name, found in scores.items() if found}
  summary = {MEAN: sum(first.values()) / len(first)} if first else {}
  others = [value for name, value in first.items() if name != source]
  if source in first and others:
    summary[GAP] = first[source] - sum(others) / len(others)
  summary |= averages(scores)
  return summary | {f'{n}/{k}': v for n, found in scores.items() for k, v in found.items()}


def evaluator(
  model: Prompted, vocabulary: Vocabulary, task: Task, **options: Any
) -> Evaluator | Suite:
  """The evaluator of a task: a `Suite` if it has parts."""
  kind = Suite if task.parts else Evaluator
  return kind(model, vocabulary, task, **options)


def scores_of(task: Task) -> list[str]:
  """The names of the scores that `evaluator` gives; the first is the one to select by."""
  if not task.parts:
    return metrics.scores_of(task.metrics)
  published = published_averages([part.name for part in task.parts])
  of_parts = [f'{p.name}/{k}' for p in task.parts for k in metrics.scores_of(p.metrics)]
  return [MEAN, *published, *of_parts]


def f1_label(task: Task) -> str:
  """Of which label `metrics.f1` is, such as "; f1 of spam", for headings; else ""."""
  said = [
    f'f1 of {part.labels[1]}' + (f' ({part.name})' if task.parts else '')
    for part in task.parts or (task,)
    if 'f1' in part.metrics and part.score is None and part.labels and len(part.labels) == 2
  ]
  return f'; {", ".join(said)}' if said else ''


def published_averages(tasks: Sequence[str]) -> list[str]:
  """The names of the averages (`averages`) that measuring some tasks gives."""
  known = {task.removeprefix('taskless_') for task in tasks}
  found = [name for name, parts in AVERAGES.items() if all(known & set(part) for part in parts)]
  # Where WNLI was measured it counts.
  return [name for name in found if name != 'glue_without_wnli' or 'glue' not in found]


def averages(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
  """{average: percent} of each benchmark whose tasks are all there, as its makers publish it.

  Every task counts once, with the mean of its metrics (Wang et al. 2018, section 4; 2019, section
  3.2). The diagnostic sets (ax, axb, axg) do not count. MNLI's matched and mismatched examples are
  one task.

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
    for name in published_averages(list(of_task))
  }


def _mean(values: Sequence[float]) -> float:
  return sum(values) / len(values)


def task_facts(task: Task) -> dict[str, dict[str, Any]]:
  """{task: {"metrics", "labels"}}: what `comparison.differences` needs to score predictions again.

  A task's own measure cannot be computed from predictions: there, correctness is compared.
  """
  return {
    part.name: {
      'metrics': ['exact_match'] if part.score else list(part.metrics),
      'labels': part.labels and list(part.labels),
    }
    for part in task.parts or (task,)
  }
