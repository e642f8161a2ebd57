"""Runs, as read from their folders: plain data for tables and plots."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_jax.training.records import MeanStd, Record, mean_std

Scores = Mapping[str, float]

FINISHED = 'finished'
UNFINISHED = 'unfinished'
UNMEASURED = 'not measured'  # it has done its steps, but there are no scores


@dataclasses.dataclass(frozen=True)
class History:
  """The training history of one seed.

  Attributes:
    seed: the seed.
    folder: where its files are; it need not exist yet.
    records: the lines of metrics.jsonl, see `training.records`.
    facts: metadata of its prompt file; {} while there is none.
    numbers: how many values its prompt file holds; None while there is none.
    ended: why it has fewer steps than the others: "patience", "halving", "diverged".
  """

  seed: int
  folder: pathlib.Path
  records: Sequence[Record] = ()
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  numbers: int | None = None
  ended: str | None = None

  @property
  def step(self) -> int:
    """The last step that is recorded; 0 before the first."""
    return max((r['step'] for r in self.records), default=0)

  def of(self, kind: str) -> list[Record]:
    """The records of one kind, "train" or "eval", in the order of steps."""
    found = [r for r in self.records if r.get('kind') == kind]
    return sorted(found, key=lambda r: r['step'])


@dataclasses.dataclass(frozen=True)
class Run:
  """One row of a report: one configuration with its seeds, or one evaluation.

  Attributes:
    folder: where it is.
    name: the folder below the ones requested, and its configuration within it.
    verb: "train", "population", "eval" or "pretrain".
    task: name of the task.
    split: the split that the scores are from; None without scores.
    model: name of the model.
    method: prompt method; "model tuning", "untuned", ...
    rows: prompt length.
    trained: number of trained parameters.
    parameters: number of parameters of the model.
    rate: learning rate.
    wanted: number of steps requested; None for an evaluation.
    seeds: all that were requested.
    scores: of each seed, in percent, the main score first; none while the run is unfinished.
    intervals: {score: (low, high)} bootstrap intervals, of those that have one.
    metric: the validation score that selects; None without any.
    best: the best value of it for each seed.
    on_validation: name of a baseline -> its `metric` on the same examples.
    seconds: of training and evaluation, see `histories.seconds`.
    status: FINISHED, UNFINISHED or UNMEASURED.
    note: anything else worth knowing, such as prompts that diverged.
    settings: the operative configuration, see `description.settings_of_text`.
    histories: one for each seed that has started.
    predictions: files of predictions.
    labels: the label words; None for free text and for several tasks.
  """

  folder: pathlib.Path
  name: str
  verb: str
  task: str
  split: str | None = None
  model: str | None = None
  method: str | None = None
  rows: int | None = None
  trained: int | None = None
  parameters: int | None = None
  rate: float | None = None
  wanted: int | None = None
  seeds: tuple[int, ...] = ()
  scores: tuple[Scores, ...] = ()
  intervals: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
  metric: str | None = None
  best: tuple[float, ...] = ()
  on_validation: Scores = dataclasses.field(default_factory=dict)
  seconds: float | None = None
  status: str = FINISHED
  note: str = ''
  settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
  histories: tuple[History, ...] = ()
  predictions: tuple[pathlib.Path, ...] = ()
  labels: tuple[str, ...] | None = None

  @property
  def metrics(self) -> dict[str, MeanStd]:
    """Mean and standard deviation over the seeds of every score, the main score first."""
    names = dict.fromkeys(name for scores in self.scores for name in scores)
    return {n: mean_std([s[n] for s in self.scores if n in s]) for n in names}

  @property
  def score(self) -> tuple[str, MeanStd] | None:
    """The main score: (name, mean and standard deviation)."""
    return next(iter(self.metrics.items()), None)

  @property
  def interval(self) -> tuple[float, float] | None:
    """The bootstrap interval of the main score."""
    return self.intervals.get(self.score[0]) if self.score else None

  @property
  def steps(self) -> int:
    """Steps done by the slowest seed that was not ended early."""
    going = [c.step for c in self.histories if not c.ended]
    if len(self.histories) < len(self.seeds):
      return 0
    return min(going or [c.step for c in self.histories], default=0)

  @property
  def source(self) -> str | None:
    """The task that was trained on, where the others are evaluated without training."""
    return self.task.split(':')[0] if ':' in self.task else None


@dataclasses.dataclass(frozen=True)
class Reference:
  """The scores of a baseline without tuning, measured in the same run."""

  task: str
  split: str | None
  system: str
  model: str | None  # None for those that need no model
  scores: tuple[tuple[str, float], ...]  # names and values, the main score first


@dataclasses.dataclass(frozen=True)
class Unreadable:
  """A folder, or a file of one, that cannot be read, and why."""

  path: pathlib.Path
  why: str


@dataclasses.dataclass(frozen=True)
class FoundRuns:
  """Everything that was found in some folders."""

  runs: tuple[Run, ...] = ()
  references: tuple[Reference, ...] = ()
  unreadable: tuple[Unreadable, ...] = ()
