"""What is known of runs from their folders: plain data, which tables and pictures are made of."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_jax.training.records import Record
from prompt_jax.training.seeds import MeanStd, mean_std

Scores = Mapping[str, float]

FINISHED = 'finished'
UNFINISHED = 'unfinished'
UNMEASURED = 'not measured'  # it has done its steps, but there are no scores


@dataclasses.dataclass(frozen=True)
class Course:
  """The training of one seed.

  Attributes:
    seed: its number.
    folder: of its files, which need not exist yet.
    records: what metrics.jsonl says, see `training.records`.
    facts: metadata of its prompt file; {} while there is none.
    numbers: how many its prompt file holds, None while there is none.
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
  """One line of a report: a setting with its seeds, or an evaluation.

  Attributes:
    folder: where it is.
    name: how it is called: the folder below those asked for, and its setting within.
    verb: "train", "population", "eval" or "pretrain".
    task: its name.
    split: what the scores are of; None without scores.
    model: its name.
    method: of prompts; "model tuning", "untuned", ...
    rows: of the prompt.
    trained: how many numbers train.
    parameters: of the model.
    rate: learning rate.
    wanted: steps that were asked for; None of an evaluation.
    seeds: all that were asked for.
    scores: of each seed, in percent, the score that counts first; none while it is unfinished.
    metric: the validation score that selects; None without any.
    best: the best value of it for each seed.
    seconds: of training and evaluation, see `courses.seconds`.
    status: FINISHED, UNFINISHED or UNMEASURED.
    note: what is to be known besides, such as prompts that diverged.
    settings: the operative configuration, see `gin_text`.
    courses: of each seed that has begun.
    predictions: files.
    labels: the words it answers with; None of free text and of several tasks.
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
  metric: str | None = None
  best: tuple[float, ...] = ()
  seconds: float | None = None
  status: str = FINISHED
  note: str = ''
  settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
  courses: tuple[Course, ...] = ()
  predictions: tuple[pathlib.Path, ...] = ()
  labels: tuple[str, ...] | None = None

  @property
  def metrics(self) -> dict[str, MeanStd]:
    """Mean and deviation over the seeds of every score; the one that counts first."""
    names = dict.fromkeys(name for scores in self.scores for name in scores)
    return {n: mean_std([s[n] for s in self.scores if n in s]) for n in names}

  @property
  def score(self) -> tuple[str, MeanStd] | None:
    """The score that counts, and its name."""
    return next(iter(self.metrics.items()), None)

  @property
  def steps(self) -> int:
    """Steps done, of the seed that has done fewest and was not ended early."""
    going = [c.step for c in self.courses if not c.ended]
    if len(self.courses) < len(self.seeds):
      return 0
    return min(going or [c.step for c in self.courses], default=0)

  @property
  def source(self) -> str | None:
    """The task that was trained on, where the others are measured without training."""
    return self.task.split(':')[0] if ':' in self.task else None


@dataclasses.dataclass(frozen=True)
class Reference:
  """The scores of a system that needs no tuning, measured beside a run."""

  task: str
  split: str | None
  system: str
  model: str | None  # None of those that need none
  scores: tuple[tuple[str, float], ...]  # names and values, the one that counts first


@dataclasses.dataclass(frozen=True)
class Unread:
  """A folder, or a file of one, that cannot be read, and why."""

  path: pathlib.Path
  why: str


@dataclasses.dataclass(frozen=True)
class Found:
  """All that some folders hold."""

  runs: tuple[Run, ...] = ()
  references: tuple[Reference, ...] = ()
  unread: tuple[Unread, ...] = ()
