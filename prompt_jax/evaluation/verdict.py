"""Whether what was tuned is better than always answering the same, and than the model untuned."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.evaluation import bootstrap
from prompt_jax.evaluation.comparison import about_task, statistic_of, tasks
from prompt_jax.evaluation.predictions import Prediction


class Verdict(NamedTuple):
  """What was tuned beside one baseline, on one task.

  Attributes:
    baseline: its name.
    task: "" for the only one.
    score: the name of what is compared, the task's first metric.
    tuned: in percent, the mean over the seeds.
    of_baseline: in percent.
    interval: (low, high) of their difference by the paired bootstrap; None for one example.
    examples: on which both were measured.
  """

  baseline: str
  task: str
  score: str
  tuned: float
  of_baseline: float
  interval: tuple[float, float] | None
  examples: int

  @property
  def better(self) -> bool:
    """Whether the tuned one is better, beyond chance."""
    low = self.tuned - self.of_baseline if self.interval is None else self.interval[0]
    return low > 0

  def __str__(self) -> str:
    difference = self.tuned - self.of_baseline
    may = 'is' if difference <= 0 else 'may be'
    on = f' on {self.task}' if self.task else ''
    said = (
      f'What was tuned {may} no better than {self.baseline}{on}: {self.score} {self.tuned:.1f} '
      f'against {self.of_baseline:.1f}'
    )
    if self.interval is None:
      return f'{said}, on {self.examples} example'
    low, high = self.interval
    level = f'{100 * bootstrap.LEVEL:.0f} %'
    return (
      f'{said} (difference {difference:+.1f}, {level} interval {low:+.1f} to {high:+.1f}, on '
      f'{self.examples} examples)'
    )

  def facts(self) -> dict[str, Any]:
    """The same as JSON."""
    return {**self._asdict(), 'better': self.better}


def verdicts(
  baselines: Mapping[str, Sequence[Prediction]],
  tuned: Sequence[Sequence[Prediction]],
  facts: Mapping[str, Mapping[str, Any]],
  vocabulary: Vocabulary | None = None,
  resamples: int = bootstrap.RESAMPLES,
) -> list[Verdict]:
  """One for each baseline and task.

  Args:
    baselines: name -> its predictions.
    tuned: predictions of each seed for the same examples; their mean score is compared.
    facts: see `suite.task_facts`.
    vocabulary: whose tokens SP-ROUGE compares.
    resamples: of the paired bootstrap.
  """
  found = []
  for at, (name, mine) in enumerate(tasks(tuned[0]).items()):
    about = about_task(facts, name)
    of = lambda rows: statistic_of([rows[i] for i in mine], about, vocabulary)  # noqa: B023
    seeds = [of(rows) for rows in tuned]
    score, value = next(iter(_mean(seeds).scores().items()))
    for baseline, rows in baselines.items():
      other = of(rows)
      spread = bootstrap.distribution(bootstrap.difference(other, _mean(seeds)), resamples, [0, at])
      interval = bootstrap.interval(spread[score]) if score in spread else None
      found.append(
        Verdict(baseline, name, score, value, other.scores()[score], interval, len(mine))
      )
  return found


def _mean(statistics: Sequence[bootstrap.Statistic]) -> bootstrap.Statistic:
  """The mean of the scores of several systems, on the same draws."""

  def of(draws: np.ndarray) -> dict[str, np.ndarray]:
    each = [statistic.of(draws) for statistic in statistics]
    return {name: np.mean([found[name] for found in each], axis=0) for name in each[0]}

  return bootstrap.Statistic(of, statistics[0].units)


def to_try(
  *, recommended: str, method: str, rising: bool, learning_rate: float | None, cut: float
) -> str:
  """What may help a run that is no better than a baseline, most promising first.

  Args:
    recommended: the method that the model recommends and the run did not use; "" without one.
    method: the class of the one that it used; "" without a prompt.
    rising: whether the last evaluation was the best.
    learning_rate: of the run; None where it is not one number.
    cut: share of the training inputs that are cut, 0 to 1.
  """
  found = []
  if recommended:
    found.append(f'prompt {recommended}, which this model recommends')
  elif method == 'InputPrompt':
    found.append(
      'prompt prefix or deep, which steer a small model better than rows before its input'
    )
  if cut > 0.1:
    found.append(f'a higher input_length ({100 * cut:.0f} % of the training inputs are cut)')
  if rising:
    found.append('more steps (the last evaluation was the best)')
  if learning_rate:
    found.append(
      f'another learning_rate, such as {learning_rate / 3:.2g} or {learning_rate * 3:.2g}'
    )
  found.append("another seed, and train all, which shows what the model's own weights can learn")
  return f'To try: {"; ".join(found)}.'
