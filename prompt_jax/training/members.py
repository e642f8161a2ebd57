"""The prompts of a run: one, or several on the same frozen model; their state and selection."""

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_jax.checkpoints.prompt_file import REQUIRED
from prompt_jax.errors import UserError, unknown
from prompt_jax.training.objective import Objective, Tree, split
from prompt_jax.training.optim import Update
from prompt_jax.training.settings import Settings
from prompt_jax.training.step import TrainState
from prompt_jax.training.streams import Position, Stream

# From numbers of members and the trainable leaves of each to the metrics of each.
EvaluateMembers = Callable[[Sequence[int], Sequence[Tree]], Sequence[Mapping[str, float]]]


@dataclasses.dataclass(frozen=True)
class Member:
  """What one prompt does not share with the others.

  Attributes:
    name: its folder below the run's, and its name in messages; '' for the only one.
    objective: what is minimised. Equal objectives are computed at once, which a method's
      initialisers would prevent: see `prompts.initialise.without_initializers`.
    update: how its leaves change at a step.
    prompt: the method's fresh parameters, {} for the bare model.
    constants: the method's non-trainable state, {} for none.
    stream: batches of NumPy arrays; see `streams.Stream`.
    metadata: of the prompt file: see `prompt_file.Prompt`. Its "fingerprint" is the backbone's.
    seed: of dropout and of the method's randomness, and in its records.
    metric: validation metric that chooses the best step; None takes the last step.
    warm_start: path of a prompt file to begin with instead of the fresh prompt.
    judged_on: digest of the validation examples, which a resumed run must have too; None to leave
      that to the caller.
  """

  name: str
  objective: Objective
  update: Update
  prompt: Tree
  constants: Tree
  stream: Stream
  metadata: dict[str, Any]
  seed: int = 0
  metric: str | None = None
  warm_start: str | None = None
  judged_on: str | None = None

  @property
  def key(self) -> str:
    """Its name in the saved state."""
    return self.name or 'run'


@dataclasses.dataclass(frozen=True)
class Ended:
  """Why a member stopped before the run did: "patience", "halving" or "diverged"."""

  step: int
  why: str


@dataclasses.dataclass(frozen=True)
class Selection:
  """The best evaluation so far; JSON values only, so that it is part of the run state.

  Attributes:
    best: value of the metric, None before the first evaluation.
    step: where it was.
    since: evaluations since then that were not better.
  """

  best: float | None = None
  step: int | None = None
  since: int = 0

  def updated(self, step: int, value: float, mode: str) -> 'Selection':
    """The selection after one more evaluation. Of equal values the first stays; NaN never wins."""
    sign = {'max': 1.0, 'min': -1.0}[mode]
    worse = self.best is not None and not sign * value > sign * self.best
    if math.isnan(value) or worse:
      return dataclasses.replace(self, since=self.since + 1)
    return Selection(best=float(value), step=step, since=0)

  def exhausted(self, patience: int | None) -> bool:
    """Whether `patience` evaluations in a row were not better."""
    return patience is not None and self.since >= patience


@dataclasses.dataclass
class MemberState:
  """All of a member that a step or an evaluation changes; it is saved."""

  train: TrainState
  constants: Tree  # the collection of the model
  selection: Selection = dataclasses.field(default_factory=Selection)
  ended: Ended | None = None
  window: list[dict[str, float]] = dataclasses.field(default_factory=list)  # since the last record


@dataclasses.dataclass
class TrainingState:
  """All of a run that changes."""

  members: list[MemberState]
  position: Position  # of the streams of all members
  step: int

  @property
  def active(self) -> list[int]:
    """Numbers of the members that still train."""
    return [k for k, s in enumerate(self.members) if s.ended is None]


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run leaves of a member.

  Attributes:
    step: number of steps done.
    metrics: of the last evaluation, {} if there was none.
    selection: best value of the validation metric and its step; empty without a metric.
    metric: that it was selected by.
    file: the prompt file (or weights) of the best step; of the last without a metric. Of a prompt
      that diverged before it was evaluated there is none.
    trainable: host arrays of the last step.
    folder: where everything is.
    ended: why it has fewer steps than the run, None if it has as many.
  """

  step: int
  metrics: dict[str, float]
  selection: Selection
  metric: str | None
  file: pathlib.Path
  trainable: Tree
  folder: pathlib.Path
  ended: Ended | None = None


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """One evaluation of the members that still train.

  Attributes:
    metrics: of each, by its number.
    seconds: that it took.
    improved: numbers of those whose best step this is.
    lines: what to print of it.
  """

  metrics: dict[int, dict[str, float]]
  seconds: float
  improved: list[int]
  lines: list[str]


def check_members(
  members: Sequence[Member],
  settings: Settings,
  evaluate: EvaluateMembers | None,
  rungs: Sequence[int],
) -> None:
  """Refuses what is wrong with a run before anything is computed.

  Raises:
    UserError: patience or rungs without a validation metric, or rungs without an evaluation.
    ValueError: metadata lack something that a prompt file needs, or names repeat.
  """
  for m in members:
    missing = [name for name in REQUIRED if name not in m.metadata]
    if missing:
      raise ValueError(f'metadata lacks {", ".join(missing)}')
  if len({m.name for m in members}) < len(members):
    raise ValueError(f'Members share names: {", ".join(m.name for m in members)}')
  selects = evaluate is not None and all(m.metric is not None for m in members)
  if settings.patience is not None and not selects:
    raise UserError('patience needs validation examples to evaluate; give some, or leave it out.')
  if rungs and not selects:
    raise UserError('halving needs validation examples to evaluate; give some, or no rungs.')
  _check_rungs(rungs, settings.steps, settings.eval_every)


def split_members(
  members: Sequence[Member], backbone: Tree, patterns: Sequence[str]
) -> tuple[list[Tree], Tree, list[Tree]]:
  """What trains of each member, what is frozen and shared, and what is frozen of each.

  Raises:
    UserError: several members would train the backbone that they share; and what `split` refuses.
  """
  trainables, own = [], []
  frozen: Tree = {}
  for m in members:
    params = {'backbone': backbone, **({'prompt': m.prompt} if m.prompt else {})}
    trainable, rest = split(params, patterns)
    if len(members) > 1 and 'backbone' in trainable:
      raise UserError(
        'Prompts that are trained at once share a frozen backbone, but the patterns '
        f'{", ".join(patterns)} train it. Train weights in runs of their own.'
      )
    frozen = {'backbone': rest.pop('backbone')} if 'backbone' in rest else {}
    trainables.append(trainable)
    own.append(rest)
  return trainables, frozen, own


def evaluate_and_select(
  members: Sequence[Member],
  training: TrainingState,
  evaluate: EvaluateMembers,
  settings: Settings,
  rungs: Sequence[int],
) -> Evaluation:
  """Evaluates the active members, updates the selection of each, and ends those that have to stop.

  Raises:
    UserError: there is no metric of the name that a member selects by.
  """
  active, began = training.active, time.monotonic()
  found = evaluate(active, [training.members[k].train.trainable for k in active])
  seconds = time.monotonic() - began
  metrics = {
    k: {name: float(value) for name, value in scores.items()}
    for k, scores in zip(active, found, strict=True)
  }
  improved = [
    k
    for k in active
    if _select(training.members[k], training.step, members[k].metric, metrics[k], settings)
  ]
  if len(members) == 1:
    (scores,) = metrics.values()
    shown = '  '.join(f'{name} {value:.4g}' for name, value in scores.items())
    return Evaluation(
      metrics, seconds, improved, [f'{shown}{"  (best so far)" if improved else ""}']
    )
  lines = [_summary(members, metrics, settings.mode)]
  if training.step in rungs:
    best = {k: training.members[k].selection.best for k in training.active}
    halved = worse_half(best, settings.mode)
    for k in halved:
      training.members[k].ended = Ended(training.step, 'halving')
    names = ', '.join(members[k].name for k in halved)
    lines.append(f'{len(training.active)} continue, without {names or "none"}')
  return Evaluation(metrics, seconds, improved, lines)


def metric_value(metrics: Mapping[str, float], name: str) -> float:
  """The metric to select by.

  Raises:
    UserError: there is none of that name; those that there are are listed.
  """
  if name not in metrics:
    raise unknown('validation metric', name, metrics)
  return float(metrics[name])


def worse_half(best: Mapping[int, float | None], mode: str) -> list[int]:
  """The members that stop (Jamieson and Talwalkar 2016, arXiv:1502.07943, algorithm 1).

  Of n members ceil(n / 2) stay. The batch is not filled up again: those left keep the rows that
  they had, so that each remains what a run of its own would be, and a step costs less.

  Args:
    best: member -> the best value of its validation metric so far, which is what its prompt file
      holds; None where there is none yet.
    mode: "max" or "min", which values are good.

  Returns:
    Numbers of members; of equal ones the first stays.
  """
  sign = {'max': -1.0, 'min': 1.0}[mode]
  order = sorted(best, key=lambda k: (best[k] is None, sign * (best[k] or 0.0), k))
  return sorted(order[(len(order) + 1) // 2 :])


def _check_rungs(rungs: Sequence[int], steps: int, eval_every: int) -> None:
  if len(set(rungs)) < len(rungs):
    raise UserError(f'The rungs {", ".join(map(str, rungs))} repeat; each is one step.')
  for rung in rungs:
    if not 0 < rung < steps or eval_every < 1 or rung % eval_every:
      raise UserError(
        f'The rung {rung} is no step with an evaluation before the last one: rungs are multiples '
        f'of eval_every ({eval_every}) below steps ({steps}).',
        ('eval_every', 'steps'),
      )


def _select(
  member: MemberState,
  step: int,
  metric: str | None,
  metrics: Mapping[str, float],
  settings: Settings,
) -> bool:
  """Whether this step is a member's best; patience may end it."""
  if metric is None:
    return False
  value = metric_value(metrics, metric)
  member.selection = member.selection.updated(step, value, settings.mode)
  if member.selection.exhausted(settings.patience):
    member.ended = Ended(step, 'patience')
  return member.selection.step == step


def _summary(members: Sequence[Member], metrics: Mapping[int, Mapping], mode: str) -> str:
  """One line on the scores of several members."""
  values = {k: metrics[k][m.metric] for k, m in enumerate(members) if k in metrics and m.metric}
  known = {k: v for k, v in values.items() if not math.isnan(v)}
  if not known:
    return f'evaluated {len(metrics)} prompts'
  order = sorted(known, key=lambda k: known[k], reverse=mode == 'max')
  mean = sum(known.values()) / len(known)
  first = members[order[0]]
  return (
    f'{first.metric} of {len(known)} prompts: best {known[order[0]]:.4g} ({first.name}), '
    f'mean {mean:.4g}, worst {known[order[-1]]:.4g}'
  )
