"""What runs return."""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.evaluation.calibration import Calibration
from prompt_jax.evaluation.comparison import Difference, Verdict
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.html_table import score_table, table
from prompt_jax.training.records import curve_png, summarize


@dataclasses.dataclass(frozen=True)
class Plot:
  """A picture that a notebook shows.

  Attributes:
    png: the file's bytes.
  """

  png: bytes = dataclasses.field(repr=False)

  def save(self, path: str | os.PathLike[str]) -> None:
    """Writes the PNG."""
    write_atomically(pathlib.Path(path), self.png)

  def _repr_png_(self) -> bytes:
    return self.png


@dataclasses.dataclass(frozen=True)
class SystemScores:
  """Something that was measured: what was tuned, or a baseline.

  Attributes:
    name: of it.
    scores: in percent, {name: score} of each seed.
    trained: how many parameters were; None where that says nothing.
    intervals: {score: (low, high)}, of those that have one.
    calibration: {task: how well it is calibrated}, of labels that were ranked.
  """

  name: str
  scores: Sequence[Mapping[str, float]]
  trained: int | None = None
  intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
  calibration: Mapping[str, Calibration] = dataclasses.field(default_factory=dict)

  @property
  def mean(self) -> dict[str, float]:
    """The mean of each score over the seeds."""
    return {name: found.mean for name, found in summarize(self.scores).items()}


@dataclasses.dataclass(frozen=True)
class Scores:
  """Systems measured on the same examples.

  Attributes:
    task: its name.
    split: of the examples; None where no split could be measured.
    systems: in the order of the table.
    predictions: system name -> its answers, of each seed.
    verdicts: whether what was tuned is better than the baselines.
  """

  task: str
  split: str | None
  systems: Sequence[SystemScores] = ()
  predictions: Mapping[str, Sequence[Sequence[Prediction]]] = dataclasses.field(
    default_factory=dict
  )
  verdicts: Sequence[Verdict] = ()

  @property
  def by_system(self) -> dict[str, dict[str, float]]:
    """SystemScores name -> score name -> mean over seeds, in percent."""
    return {s.name: s.mean for s in self.systems}

  def _repr_html_(self) -> str:
    title = self.task if self.split is None else f'{self.task}, {self.split} split, in percent'
    return score_table(list(self.by_system.items()), title)


@dataclasses.dataclass(frozen=True)
class TrainedPrompt:
  """One run of training.

  Attributes:
    name: of a member of a population; "" of a run by itself.
    seed: of everything random.
    folder: of its files.
    file: the prompt (or weights) of the best step.
    step: the last one.
    best_step: the one that was selected; None without validation examples.
    metric: the validation score that selects it; None without validation examples.
    validation: its value at the best step.
    curve: the records of the run, as in metrics.jsonl.
    setting: of a member of a population, what varies.
    ended: why it ended before its last step: "patience", "halving", "diverged"; None if not.
    on_validation: name of a baseline -> its `metric` on the examples that the curve is of.
  """

  name: str
  seed: int
  folder: pathlib.Path
  file: pathlib.Path
  step: int
  best_step: int | None
  metric: str | None
  validation: float | None
  curve: Sequence[Mapping[str, Any]]
  setting: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  ended: str | None = None
  on_validation: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def plot(self) -> Plot:
    """The training loss and the validation score by step, with baselines."""
    return Plot(curve_png(self.curve, self.metric, self.on_validation))


@dataclasses.dataclass(frozen=True)
class TrainResult:
  """What `train` leaves.

  Attributes:
    folder: of all files.
    runs: one of each seed.
    measured: the scores of what was tuned, beside baselines.
  """

  folder: pathlib.Path
  runs: Sequence[TrainedPrompt]
  measured: Scores

  @property
  def scores(self) -> dict[str, dict[str, float]]:
    """System name -> score name -> mean over seeds, in percent."""
    return self.measured.by_system

  @property
  def file(self) -> pathlib.Path:
    """The prompt file (or weights) of the first seed."""
    return self.runs[0].file

  @property
  def curve(self) -> Sequence[Mapping[str, Any]]:
    """The training history of the first seed: records of steps, losses and validation scores."""
    return self.runs[0].curve

  def plot(self) -> Plot:
    """The training loss and the validation score of the first seed by step, with baselines."""
    return self.runs[0].plot()

  def _repr_html_(self) -> str:
    return f'{self.measured._repr_html_()}<p>{escape(str(self.file))}</p>'


@dataclasses.dataclass(frozen=True)
class PopulationResult:
  """What `population` leaves.

  Attributes:
    folder: of all files.
    runs: one of each variant and seed.
    measured: task -> scores, by variant.
    best: task -> the file of its best prompt; none without validation examples.
  """

  folder: pathlib.Path
  runs: Sequence[TrainedPrompt]
  measured: Mapping[str, Scores]
  best: Mapping[str, pathlib.Path]

  @property
  def scores(self) -> dict[str, dict[str, dict[str, float]]]:
    """Task -> system name -> score name -> mean over seeds, in percent."""
    return {task: measured.by_system for task, measured in self.measured.items()}

  def _repr_html_(self) -> str:
    best = ''.join(f'<p>{escape(t)}: {escape(str(f))}</p>' for t, f in self.best.items())
    return ''.join(scores._repr_html_() for scores in self.measured.values()) + best


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
  """What `evaluate` finds.

  Attributes:
    measured: the scores of each prompt, and of several together.
    folder: of its files; None where none were asked for.
  """

  measured: Scores
  folder: pathlib.Path | None

  @property
  def scores(self) -> dict[str, dict[str, float]]:
    """System name -> score name -> value, in percent."""
    return self.measured.by_system

  def _repr_html_(self) -> str:
    return self.measured._repr_html_()


@dataclasses.dataclass(frozen=True)
class ComparisonResult:
  """What `compare` finds.

  Attributes:
    first: the folder or file of one system.
    second: that of the other.
    differences: seed ("" of a run by itself) -> score name -> both scores and an interval.
  """

  first: str
  second: str
  differences: Mapping[str, Mapping[str, Difference]]


@dataclasses.dataclass(frozen=True)
class Answer:
  """The label or text for one input; probability among the labels, None for text."""

  text: str
  prediction: str
  probability: float | None = None


@dataclasses.dataclass(frozen=True)
class Answers(Sequence[Answer]):
  """Answers in the order of their texts.

  Attributes:
    answers: one a text.
  """

  answers: tuple[Answer, ...]

  def __getitem__(self, index):
    return self.answers[index]

  def __len__(self) -> int:
    return len(self.answers)

  def __iter__(self) -> Iterator[Answer]:
    return iter(self.answers)

  def _repr_html_(self) -> str:
    share = lambda p: '-' if p is None else f'{p:.3f}'
    rows = [[a.text, a.prediction, share(a.probability)] for a in self.answers]
    return table(['text', 'answer', 'probability'], rows)
