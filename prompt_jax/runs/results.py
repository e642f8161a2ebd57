"""What runs return."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_jax.evaluation.calibration import Calibration
from prompt_jax.evaluation.comparison import Difference
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.training.records import summarize


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
  """

  task: str
  split: str | None
  systems: Sequence[SystemScores] = ()
  predictions: Mapping[str, Sequence[Sequence[Prediction]]] = dataclasses.field(
    default_factory=dict
  )

  @property
  def by_system(self) -> dict[str, dict[str, float]]:
    """SystemScores name -> score name -> mean over seeds, in percent."""
    return {s.name: s.mean for s in self.systems}


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
    validation: its score; None without validation examples.
    curve: the records of the run, as in metrics.jsonl.
    setting: of a member of a population, what varies.
    ended: why it ended before its last step: "patience", "halving", "diverged"; None if not.
  """

  name: str
  seed: int
  folder: pathlib.Path
  file: pathlib.Path
  step: int
  best_step: int | None
  validation: float | None
  curve: Sequence[Mapping[str, Any]]
  setting: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  ended: str | None = None


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


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
  """What `evaluate` finds.

  Attributes:
    measured: the scores of each prompt, and of several together.
    folder: of its files; None where none were asked for.
  """

  measured: Scores
  folder: pathlib.Path | None


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
