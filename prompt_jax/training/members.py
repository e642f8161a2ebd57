"""The runs that share a frozen model and a loop: one, or a population of prompts."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from prompt_jax.checkpoints.run_state import RunStates
from prompt_jax.sharding.placement import Placement
from prompt_jax.training.objective import Objective
from prompt_jax.training.optim import Update
from prompt_jax.training.output import Output
from prompt_jax.training.partition import Tree
from prompt_jax.training.prefetch import Position, Stream
from prompt_jax.training.selection import Selection
from prompt_jax.training.settings import Settings
from prompt_jax.training.step import TrainState

# From numbers of members and the trainable leaves of each to the metrics of each.
EvaluateTogether = Callable[[Sequence[int], Sequence[Tree]], Sequence[Mapping[str, float]]]


@dataclasses.dataclass(frozen=True)
class Member:
  """What one prompt does not share with the others.

  Attributes:
    name: its folder below the run's, and its name in messages; '' for the only one.
    objective: what it minimises. Equal objectives are computed together, which a method's
      initialisers would prevent: see `prompts.initialise.without_initializers`.
    prompt: the method's fresh parameters, {} for the bare model.
    constants: the method's non-trainable state, {} for none.
    stream: batches of NumPy arrays; see `prefetch.Stream`.
    update: how it does that.
    metadata: of the prompt file: see `prompt_file.Prompt`. Its "fingerprint" is the backbone's.
    seed: of dropout, and in its records.
    metric: validation metric that chooses the best step; None takes the last step.
    warm_start: path of a prompt file to begin with instead of the fresh prompt.
  """

  name: str
  objective: Objective
  prompt: Tree
  constants: Tree
  stream: Stream
  update: Update
  metadata: dict[str, Any]
  seed: int = 0
  metric: str | None = None
  warm_start: str | None = None

  @property
  def key(self) -> str:
    """Its name in the saved state."""
    return self.name or 'run'


@dataclasses.dataclass(frozen=True)
class Ended:
  """Why a member trains no more though the run goes on: "patience", "halving" or "diverged"."""

  step: int
  why: str


@dataclasses.dataclass
class Standing:
  """Where one member stands: what is saved of it, and all that a step changes."""

  state: TrainState
  constants: Tree  # the collection of the model
  selection: Selection = dataclasses.field(default_factory=Selection)
  ended: Ended | None = None


@dataclasses.dataclass
class Point:
  """Where a run stands."""

  standings: list[Standing]
  position: Position  # of the streams of all members
  step: int

  @property
  def active(self) -> list[int]:
    """Numbers of the members that still train."""
    return [k for k, s in enumerate(self.standings) if s.ended is None]


@dataclasses.dataclass(frozen=True)
class Run:
  """What stays the same during a run, for the phases below."""

  members: Sequence[Member]
  settings: Settings
  folder: pathlib.Path
  fingerprint: str
  frozen: Tree  # what the members share
  own: Sequence[Tree]  # what is frozen of each
  step: Callable
  evaluate: EvaluateTogether | None
  rungs: Sequence[int]
  states: RunStates
  outputs: Sequence[Output]
  console: Console
  placement: Placement | None  # None for one device


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run leaves of a member.

  Attributes:
    step: number of steps done.
    metrics: of the last evaluation, {} if there was none.
    selection: best value of the validation metric and its step; empty without a metric.
    file: the prompt file (or weights) of the best step; of the last without a metric. Of a prompt
      that diverged before it was evaluated there is none.
    trainable: host arrays of the last step.
    folder: where everything is.
    ended: why it has fewer steps than the run, None if it has as many.
  """

  step: int
  metrics: dict[str, float]
  selection: Selection
  file: pathlib.Path
  trainable: Tree
  folder: pathlib.Path
  ended: Ended | None = None
