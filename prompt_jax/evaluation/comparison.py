"""Two systems on the same examples: which is better, and whether the difference may be chance.

Also what was tuned beside its baselines, and what to try where it is no better.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.data.example import same_text
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError
from prompt_jax.evaluation import bootstrap, metrics
from prompt_jax.evaluation.evaluator import label_of
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.evaluation.suite import summarise

# Metrics computed from whether each prediction is correct, whatever else a task compares.
OF_HITS = ('accuracy', 'exact_match')
# Metrics of label indices; all others are of texts.
OF_LABELS = ('f1', 'f1_macro', 'group_exact_match', 'matthews_corrcoef')


class Difference(NamedTuple):
  """One score of two systems.

  Attributes:
    first: of A, in percent.
    second: of B.
    interval: (low, high) of second - first by the paired bootstrap; None for one example.
  """

  first: float
  second: float
  interval: tuple[float, float] | None


class Discordance(NamedTuple):
  """How often two systems are right and wrong together.

  Attributes:
    both: number of examples that both get right.
    first: that only A gets right.
    second: that only B gets right.
    neither: that both get wrong.
    other: of those, the ones where the wrong answers differ.
    p: p-value of McNemar's exact test.
  """

  both: int
  first: int
  second: int
  neither: int
  other: int
  p: float


def check_pairs(first: Sequence[Prediction], second: Sequence[Prediction]) -> None:
  """Refuses predictions that are not of the same examples in the same order.

  Raises:
    UserError: says which example differs, and in what.
  """
  if len(first) != len(second):
    raise UserError(
      f'A has {len(first)} predictions and B {len(second)}; only systems that answered the same '
      'examples can be compared. Evaluate both on one split.'
    )
  for number, (a, b) in enumerate(zip(first, second, strict=True), 1):
    for what in ('task', 'input', 'target', 'answers', 'group'):
      ours, theirs = getattr(a, what), getattr(b, what)
      if ours != theirs:
        raise UserError(
          f'Example {number} differs: its {what} is {_short(ours)} in A and {_short(theirs)} in B. '
          'Only systems that answered the same examples, in the same order and in the same words, '
          'can be compared.'
        )


def differences(
  first: Sequence[Prediction],
  second: Sequence[Prediction],
  facts: Mapping[str, Mapping[str, Any]],
  resamples: int = bootstrap.RESAMPLES,
  seed: int = 0,
  vocabulary: Vocabulary | None = None,
) -> dict[str, Difference]:
  """{score: difference}; of several tasks {"mean", "TASK/SCORE", ...}.

  Args:
    first: predictions of A.
    second: predictions of B on the same examples (`check_pairs`).
    facts: see `suite.task_facts`; a task that is not among them is compared by accuracy.
    resamples: number of resamples of the paired bootstrap.
    seed: of the resamples.
    vocabulary: whose tokens SP-ROUGE compares.

  Raises:
    UserError: predictions of a task whose answers are not known.
  """
  scores: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
  spread: dict[str, Any] = {}
  parts = tasks(first)
  for at, (name, mine) in enumerate(parts.items()):
    about = about_task(facts, name)
    a, b = (statistic_of([side[i] for i in mine], about, vocabulary) for side in (first, second))
    for side, found in zip(scores, (a, b), strict=True):
      side[name] = found.scores()
    spread[name] = bootstrap.distribution(bootstrap.difference(a, b), resamples, [seed, at])
  if len(parts) == 1:
    (ours, theirs), (drawn,) = (next(iter(s.values())) for s in scores), spread.values()
  else:
    ours, theirs = map(summarise, scores)
    drawn = summarise(spread) if all(spread.values()) else {}
  return {
    key: Difference(
      ours[key], theirs[key], bootstrap.interval(drawn[key]) if key in drawn else None
    )
    for key in ours
  }


def discordance(first: Sequence[Prediction], second: Sequence[Prediction]) -> Discordance:
  """How often each system is right, and McNemar's test (1947) in its exact form.

  The null hypothesis: of the examples that only one system gets right, each gets half.

  Args:
    first: predictions of A, with `correct` known.
    second: predictions of B on the same examples.
  """
  from scipy.stats import binomtest

  counts = {(a, b): 0 for a in (True, False) for b in (True, False)}
  other = 0
  for a, b in zip(first, second, strict=True):
    counts[bool(a.correct), bool(b.correct)] += 1
    other += not a.correct and not b.correct and a.prediction != b.prediction
  one, two = counts[True, False], counts[False, True]
  p = float(binomtest(one, one + two).pvalue) if one + two else 1.0
  return Discordance(counts[True, True], one, two, counts[False, False], other, p)


def counts_hits(names: Sequence[str], labels: Sequence[str] | None) -> bool:
  """Whether answers of a task are right or wrong, unlike a summary."""
  return labels is not None or any(n in OF_HITS or n.startswith('squad') for n in names)


def about_task(facts: Mapping[str, Mapping[str, Any]], name: str) -> Mapping[str, Any]:
  """The facts of a task; predictions of a single task do not name it."""
  return facts.get(name) or (next(iter(facts.values())) if len(facts) == 1 else {})


def tasks(predictions: Sequence[Prediction]) -> dict[str, list[int]]:
  """Task name -> indices of its predictions; a single task without a name is ""."""
  found: dict[str, list[int]] = {}
  for i, p in enumerate(predictions):
    found.setdefault(p.task or '', []).append(i)
  return found


def statistic_of(
  predictions: Sequence[Prediction], about: Mapping[str, Any], vocabulary: Vocabulary | None
) -> bootstrap.Statistic:
  """The scores of one task's predictions as a function of draws."""
  if any(p.correct is None for p in predictions):
    raise UserError(
      'The predictions do not say which are right: the answers of their examples are not known. '
      'Compare those of a split that has answers.'
    )
  names, labels = about.get('metrics') or ['accuracy'], about.get('labels')
  groups = [p.group for p in predictions]

  def compared(name: str) -> bootstrap.Statistic:
    if name in OF_HITS:
      correct = [p.correct for p in predictions]
      return metrics.statistic([name], [True] * len(correct), correct, groups)
    if name in OF_LABELS and labels is not None:
      indices = [[label_of(x, labels) for x in (p.target, p.prediction)] for p in predictions]
      targets, values = map(list, zip(*indices, strict=True))
      return metrics.statistic([name], targets, values, groups, len(labels))
    texts = [same_text(p.prediction) for p in predictions]
    answers = [p.answers or same_text(p.target) for p in predictions]
    return metrics.statistic([name], answers, texts, groups, vocabulary=vocabulary)

  found = [compared(name) for name in names]
  of = lambda draws: {key: value for part in found for key, value in part.of(draws).items()}
  return bootstrap.Statistic(of, found[0].units)


def _short(value: Any, most: int = 60) -> str:
  text = repr(value)
  return text if len(text) <= most else f'{text[: most - 1]}…'


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
  *, recommended: str, only_rows: bool, rising: bool, learning_rate: float | None, cut: float
) -> str:
  """What may help a run that is no better than a baseline, most promising first.

  Args:
    recommended: the method that the model recommends and the run did not use; "" without one.
    only_rows: whether rows among the input tokens are all that the used one adds.
    rising: whether the last evaluation was the best.
    learning_rate: of the run; None where it is not one number.
    cut: share of the training inputs that are cut, 0 to 1.
  """
  found = []
  if recommended:
    found.append(f'prompt {recommended}, which this model recommends')
  elif only_rows:
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
