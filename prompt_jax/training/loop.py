"""One linear trainer: prompt tuning, model tuning and pre-training are patterns of the same run.

A run has one member, or several prompts that share the frozen model (`train_members`).
"""

import dataclasses
import functools
import os
import pathlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from rich.console import Console

from prompt_jax.errors import UserError
from prompt_jax.runtime import processes
from prompt_jax.sharding.placement import Placement
from prompt_jax.training.members import (
  Ended,
  EvaluateMembers,
  Member,
  MemberState,
  Result,
  TrainingState,
  check_members,
  evaluate_and_select,
  split_members,
)
from prompt_jax.training.monitor import Interrupt, Monitor, Profile, Progress
from prompt_jax.training.objective import Objective, Tree, count
from prompt_jax.training.optim import Update
from prompt_jax.training.records import Records, plot_curve, read_records
from prompt_jax.training.run_folder import MemberFiles, RunFolder, opened
from prompt_jax.training.settings import Settings
from prompt_jax.training.step import CompiledStep, StepArguments, create_state, jit_train_step
from prompt_jax.training.streams import Prefetch, Stream, Streams

Evaluate = Callable[[Tree], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class _Run:
  """What stays the same during a run."""

  members: Sequence[Member]
  settings: Settings
  folder: RunFolder
  frozen: Tree  # what the members share
  own: Sequence[Tree]  # what is frozen of each
  evaluate: EvaluateMembers | None
  rungs: Sequence[int]
  console: Console
  placement: Placement | None  # None for one device

  def arguments(self, training: TrainingState, batches: Sequence[Any]) -> StepArguments:
    """Of a step of every member that still trains."""
    active = training.active
    states = [training.members[k] for k in active]
    arrays = (
      [s.train for s in states],
      self.frozen,
      [self.own[k] for k in active],
      [s.constants for s in states],
      [batches[k] for k in active],
    )
    static = {
      'objectives': tuple(self.members[k].objective for k in active),
      'updates': tuple(self.members[k].update for k in active),
    }
    return StepArguments(arrays, static)

  def upcoming(
    self, training: TrainingState, streams: Streams, put: Callable[[Any], Any]
  ) -> list[StepArguments]:
    """Of the programs to compile ahead of time: one for each shape of the next batches."""
    if processes.count() > 1:  # they would not begin in the same order
      return []
    batches = streams.upcoming_shapes(self.settings.steps - training.step)
    return [self.arguments(training, put(batch)) for batch in batches]


def train(
  *,
  objective: Objective,
  update: Update,
  backbone: Tree,
  prompt: Tree,
  constants: Tree,
  stream: Stream,
  settings: Settings,
  folder: str | os.PathLike,
  metadata: dict[str, Any],
  evaluate: Evaluate | None = None,
  judged_on: str | None = None,
  begun: Callable[[], None] = lambda: None,
  console: Console | None = None,
  placement: Placement | None = None,
) -> Result:
  """Trains what `settings.patterns` selects, continuing the run that the output folder holds.

  The same call again resumes after the last saved state, and ends with the bytes of a run that
  was never stopped (on the same machine). SIGTERM and Ctrl-C save, then exit with code 143 or 130.

  Args:
    objective: what is minimised, such as `objective.CrossEntropy` of a `prompted.PromptedT5`.
    update: how, such as by the steps of an optimizer.
    backbone: its parameters, in the compute dtype where they are frozen.
    prompt: the method's fresh parameters, {} for the bare model.
    constants: the method's non-trainable state, {} for none.
    stream: batches of NumPy arrays; see `streams.Stream`.
    settings: see `settings.Settings`.
    folder: of this run alone. It will hold state/ (to resume from), metrics.jsonl, curve.png,
      prompt.safetensors (or weights.safetensors), initial.safetensors, and last.safetensors where
      the best step may be another.
    metadata: of the prompt file: see `prompt_file.Prompt`. Its "fingerprint" is the backbone's.
    evaluate: from the trainable leaves on the device, which it must not keep, to metrics of the
      validation data.
    judged_on: see `members.Member`.
    begun: called in the first process once the folder was found to be this run's.
    console: where to print.
    placement: the mesh, over which `backbone` already lies; None for one device. With several
      processes every one of them calls this, and the first alone writes and prints.

  Raises:
    UserError: the folder belongs to another model or set-up, is in use or cannot be written; the
      loss is not finite; the data end early; patience without a metric; and what `split` and the
      optimizer refuse.
  """
  member = Member(
    name='',
    objective=objective,
    update=update,
    prompt=prompt,
    constants=constants,
    stream=stream,
    metadata=metadata,
    seed=settings.seed,
    metric=settings.metric,
    warm_start=settings.warm_start,
    judged_on=judged_on,
  )
  one = None if evaluate is None else lambda _, trainables: [evaluate(trainables[0])]
  (result,) = train_members(
    members=[member],
    backbone=backbone,
    settings=settings,
    folder=folder,
    evaluate=one,
    begun=begun,
    console=console,
    placement=placement,
  )
  return result


def train_members(
  *,
  members: Sequence[Member],
  backbone: Tree,
  settings: Settings,
  folder: str | os.PathLike,
  evaluate: EvaluateMembers | None = None,
  rungs: Sequence[int] = (),
  at_once: int | None = None,
  begun: Callable[[], None] = lambda: None,
  console: Console | None = None,
  placement: Placement | None = None,
) -> list[Result]:
  """Trains several prompts on one frozen model in one program; else as `train`.

  Each becomes what a run of its own would make of it (see `step.train_step`), selects its best
  step and stops by itself: by patience, or when a number is not finite, which is an error only if
  it happens to all. With fewer members the step is compiled again.

  Args:
    members: K runs with different names.
    backbone: what they share, frozen.
    settings: of all; its `seed`, `metric` and `warm_start` are each member's own.
    folder: of this run alone. It will hold state/ of the whole population, and a folder for each
      member with all that `train` leaves but the state.
    evaluate: the metrics of those members whose numbers it is given.
    rungs: steps at which the worse half stops; see `members.worse_half`.
    at_once: see `step.train_step`.
    begun: see `train`.
    console: where to print.
    placement: see `train`.

  Raises:
    UserError: as `train`, or the members' patterns train the model that they share.
  """
  console = console or Console()
  folder = pathlib.Path(folder)
  check_members(members, settings, evaluate, rungs)

  fresh, frozen, own, files = _begin(members, backbone, settings, folder, console, placement)
  streams = Streams({m.key: m.stream for m in members})
  with opened(folder, members, files, settings) as run_folder, Interrupt() as interrupt:
    run = _Run(members, settings, run_folder, frozen, own, evaluate, rungs, console, placement)
    training, resumed = run_folder.restore(fresh, streams, settings.steps)
    run_folder.begin(begun)
    if resumed:
      console.print(f'Going on after step {training.step}', highlight=False)
    if placement:
      for s in training.members:
        s.train, s.constants = placement.put((s.train, s.constants), placement.replicated)
    _loop(run, training, streams, interrupt, at_once)
    run_folder.wait()
    results = [_finish(run, training, k) for k in range(len(members))]
    if interrupt.signal:  # it came after the last step
      _leave(run, training, interrupt)
    return results


def _begin(
  members: Sequence[Member],
  backbone: Tree,
  settings: Settings,
  folder: pathlib.Path,
  console: Console,
  placement: Placement | None,
) -> tuple[list[MemberState], Tree, list[Tree], list[MemberFiles]]:
  """Splits, and puts on the device: the frozen side as it is, the trainable side as float32.

  Returns the fresh state of each member, what is frozen and shared, what is frozen of each, and the
  files of each.
  """
  trainables, frozen, own = split_members(members, backbone, settings.patterns)
  console.print(
    _counts(trainables, count(frozen) + count((trainables[0], own[0]))), highlight=False
  )
  collections = [{'prompt': m.constants} if m.constants else {} for m in members]
  files = [
    MemberFiles(folder / m.name, trainable, rest, constants, {**m.metadata, 'seed': m.seed})
    for m, trainable, rest, constants in zip(members, trainables, own, collections, strict=True)
  ]
  put = placement.replicate if placement else jax.device_put
  frozen, own, collections = put((frozen, own, collections))
  fresh = [
    MemberState(create_state(trainable, m.update, m.seed), constants)
    for m, trainable, constants in zip(members, trainables, collections, strict=True)
  ]
  return fresh, frozen, own, files


def _counts(trainables: Sequence[Tree], of_one: int) -> str:
  """How many parameters train, for the first line of a run."""
  n = count(trainables[0])
  if len(trainables) == 1:
    return f'{n:,} of {of_one:,} parameters train ({100 * n / of_one:.3g} %)'
  return f'{len(trainables)} prompts train at once, {count(trainables):,} parameters in all'


def _loop(
  run: _Run,
  training: TrainingState,
  streams: Streams,
  interrupt: Interrupt,
  at_once: int | None,
) -> None:
  """Steps until the last one or until no member is left, with evaluations and saves in between."""
  settings = run.settings
  records = [Records(f.records, training.step) for f in run.folder.files]
  if training.step >= settings.steps or not training.active:
    return
  put = run.placement.put_rows if run.placement else jax.device_put
  step = jit_train_step(
    microbatches=settings.microbatches, at_once=at_once, placement=run.placement
  )
  trace = run.folder.path / 'profile' if settings.profile and processes.is_first() else None
  with (
    CompiledStep(step, run.upcoming(training, streams, put)) as compiled,
    Progress(settings.steps, training.step, run.console) as progress,
    Prefetch(streams, settings.prefetch, put) as prefetched,
    Profile(trace, training.step, settings.steps, progress) as profile,
  ):
    diverged = functools.partial(_diverged, run, training, progress)
    windows = [s.window for s in training.members]
    monitor = Monitor(records, windows, progress, settings.record_every, diverged)
    if training.step == 0 and settings.eval_at_start and run.evaluate:
      _evaluate(run, run.evaluate, training, records, progress)
    for batches, position in prefetched:
      active, arguments = training.active, run.arguments(training, batches)
      with profile.step(training.step), jax.transfer_guard('disallow'):
        states, found = compiled(arguments)
      for k, state in zip(active, states, strict=True):
        training.members[k].train = state
      metrics = dict(zip(active, found, strict=True))
      training.step, training.position = training.step + 1, position
      profile.stepped(training.step, metrics)
      monitor.push(training.step, metrics)
      last = training.step == settings.steps
      value, improved = None, False
      if run.evaluate and (last or _due(training.step, settings.eval_every)):
        with monitor.paused():
          value, improved = _evaluate(run, run.evaluate, training, records, progress)
          monitor.close(metrics.keys() - set(training.active))
      last = last or not training.active
      stop = interrupt.reached(training.step)
      if last:
        monitor.close()
      if last or improved or stop or _due(training.step, settings.save_every):
        with monitor.paused():  # A state is saved only once its metrics were seen to be finite.
          run.folder.save(training, value)
      if stop:
        _leave(run, training, interrupt)
      if last:
        return
  raise UserError(
    f'The data ended after step {training.step} of {settings.steps}. Give fewer steps or a stream '
    'that repeats.'
  )


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0


def _evaluate(
  run: _Run,
  evaluate: EvaluateMembers,
  training: TrainingState,
  records: Sequence[Records],
  progress: Progress,
) -> tuple[float | None, bool]:
  """Evaluates, and writes what follows from it.

  Returns the value of the only member (None of several), and whether any improved.
  """
  members = run.members
  found = evaluate_and_select(members, training, evaluate, run.settings, run.rungs)
  for k, metrics in found.metrics.items():
    records[k].add(training.step, 'eval', {**metrics, 'seconds': found.seconds})
  for k in found.improved:
    state, files = training.members[k], run.folder.files[k]
    metadata = {
      'step': training.step,
      'metric': members[k].metric,
      'value': state.selection.best,
    }
    files.write(files.best, state.train.trainable, metadata)
  for line in found.lines:
    progress.say(f'step {training.step}: {line}')
  only = found.metrics.get(0, {}) if len(members) == 1 else {}
  return only.get(members[0].metric or ''), bool(found.improved)


def _diverged(
  run: _Run, training: TrainingState, progress: Progress, member: int, step: int, what: str
) -> None:
  """Stops a member; ends the run if all members have diverged."""
  name = run.members[member].name
  training.members[member].ended = Ended(step, 'diverged')
  if all(s.ended is not None and s.ended.why == 'diverged' for s in training.members):
    whose = f' of {name}' if name else ''
    raise UserError(
      f'{what} at step {step}{whose}. Its state was not saved. Lower the learning rate, warm it '
      'up, or look at the data of that step; then begin in another output folder.'
    )
  progress.say(f'step {step}: {name} stops: {what}')


def _leave(run: _Run, training: TrainingState, interrupt: Interrupt) -> None:
  """Ends the process after a signal, once the state is on disk."""
  run.folder.wait()
  name = signal.Signals(interrupt.exit_code - 128).name
  run.console.print(
    f'{name}: saved step {training.step}. The same command resumes from there.', highlight=False
  )
  raise SystemExit(interrupt.exit_code)


def _finish(run: _Run, training: TrainingState, k: int) -> Result:
  """Writes the file of a member's last step and its curve."""
  state, files, m = training.members[k], run.folder.files[k], run.members[k]
  trainable, ended = state.train.trainable, state.ended
  step = ended.step if ended else training.step
  if ended is None or ended.why != 'diverged':
    path = files.last if state.selection.step is not None else files.best
    files.write(path, trainable, {'step': step})
  records = processes.broadcast(lambda: read_records(files.records))
  if processes.is_first():
    plot_curve(records, files.folder / 'curve.png', m.metric)
  evaluated = [r for r in records if r['kind'] == 'eval']
  about = ('step', 'kind', 'seconds')
  return Result(
    step=step,
    metrics={k: v for k, v in evaluated[-1].items() if k not in about} if evaluated else {},
    selection=state.selection,
    metric=m.metric,
    file=files.best,
    trainable=jax.device_get(trainable),
    folder=files.folder,
    ended=ended,
  )
