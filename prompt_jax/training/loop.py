"""One linear trainer: prompt tuning, model tuning and pre-training are patterns of the same run.

A run has one member, or several prompts that share the frozen model (`train_together`).
"""

import functools
import os
import pathlib
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from rich.console import Console

from prompt_jax.checkpoints.prompt_file import REQUIRED
from prompt_jax.checkpoints.run_state import RunStates
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes
from prompt_jax.sharding.placement import Placement
from prompt_jax.training import calls
from prompt_jax.training.ahead import Ahead
from prompt_jax.training.halving import check_rungs
from prompt_jax.training.interrupt import Interrupt
from prompt_jax.training.judge import judge
from prompt_jax.training.lock import Lock
from prompt_jax.training.members import (
  Ended,
  EvaluateTogether,
  Member,
  Point,
  Result,
  Run,
  Standing,
)
from prompt_jax.training.monitor import Monitor
from prompt_jax.training.objective import Objective
from prompt_jax.training.optim import Update
from prompt_jax.training.output import Output
from prompt_jax.training.partition import Tree, count, split
from prompt_jax.training.prefetch import Prefetch, Stream
from prompt_jax.training.profile import Profile
from prompt_jax.training.progress import Progress
from prompt_jax.training.records import Records, plot_curve, read_records
from prompt_jax.training.saved import restore, save
from prompt_jax.training.settings import Settings
from prompt_jax.training.step import create_state, jit_train_step
from prompt_jax.training.streams import Streams

Evaluate = Callable[[Tree], Mapping[str, float]]


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
  console: Console | None = None,
  placement: Placement | None = None,
) -> Result:
  """Trains what `settings.patterns` says, from where the output folder stands.

  The same call again goes on after the last saved state, and ends with the bytes of a run that
  was never stopped (on the same machine). SIGTERM and Ctrl-C save, then exit with code 143 or 130.

  Args:
    objective: what is minimised, such as `objective.CrossEntropy` of a `prompted.PromptedT5`.
    update: how, such as by the steps of an optimiser.
    backbone: its parameters, in the compute dtype where they are frozen.
    prompt: the method's fresh parameters, {} for the bare model.
    constants: the method's non-trainable state, {} for none.
    stream: batches of NumPy arrays; see `prefetch.Stream`.
    settings: see `settings.Settings`.
    folder: of this run alone. It will hold state/ (to go on from), metrics.jsonl, curve.png,
      prompt.safetensors (or weights.safetensors), initial.safetensors, and last.safetensors where
      the best step may be another.
    metadata: of the prompt file: see `prompt_file.Prompt`. Its "fingerprint" is the backbone's.
    evaluate: from the trainable leaves on the device, which it must not keep, to metrics of the
      validation data.
    console: where to print.
    placement: the mesh, over which `backbone` already lies; None for one device. With several
      processes every one of them calls this, and the first alone writes and prints.

  Raises:
    UserError: the folder belongs to another model or set-up, is in use or cannot be written; the
      loss is not finite; the data end early; patience without a metric; and what `split` and the
      optimiser refuse.
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
  )
  one = None if evaluate is None else lambda _, trainables: [evaluate(trainables[0])]
  (result,) = train_together(
    members=[member],
    backbone=backbone,
    settings=settings,
    folder=folder,
    evaluate=one,
    console=console,
    placement=placement,
  )
  return result


def train_together(
  *,
  members: Sequence[Member],
  backbone: Tree,
  settings: Settings,
  folder: str | os.PathLike,
  evaluate: EvaluateTogether | None = None,
  rungs: Sequence[int] = (),
  at_once: int | None = None,
  console: Console | None = None,
  placement: Placement | None = None,
) -> list[Result]:
  """Trains several prompts on one frozen model in one program; else as `train`.

  Each becomes what a run of its own would make of it (see `step.train_step`), selects
  its best step and stops by itself: by patience, or when a number is not finite, which is an error
  only if it happens to all. With fewer members the step is compiled again.

  Args:
    members: K runs with different names.
    backbone: what they share, frozen.
    settings: of all; its `seed`, `metric` and `warm_start` are each member's own.
    folder: of this run alone. It will hold state/ of the whole population, and a folder for each
      member with all that `train` leaves but the state.
    evaluate: the metrics of those members whose numbers it is given.
    rungs: steps at which the worse half stops; see `halving.worse_half`.
    at_once: see `step.train_step`.
    console: where to print.
    placement: see `train`.

  Raises:
    UserError: as `train`, or the members' patterns train the model that they share.
  """
  console = console or Console()
  folder = pathlib.Path(folder)
  _check(members, settings, evaluate, rungs)

  # Split, and put on the device: the frozen side as it is, the trainable side as float32.
  fresh, frozen, own = _split(members, backbone, settings)
  console.print(_counts(fresh, count(frozen) + count((fresh[0], own[0]))), highlight=False)
  collections = [{'prompt': m.constants} if m.constants else {} for m in members]
  outputs = [
    Output(folder / m.name, trainable, rest, constants, {**m.metadata, 'seed': m.seed})
    for m, trainable, rest, constants in zip(members, fresh, own, collections, strict=True)
  ]
  put = placement.replicate if placement else jax.device_put
  frozen, own, collections = put((frozen, own, collections))
  begun = [
    Standing(create_state(trainable, m.update, m.seed), constants)
    for m, trainable, constants in zip(members, fresh, collections, strict=True)
  ]

  step = jit_train_step(microbatches=settings.microbatches, at_once=at_once, placement=placement)

  # Restore, loop, finish.
  saved = RunStates(folder / 'state', settings.keep, settings.mode)
  streams = Streams({m.key: m.stream for m in members})
  with Lock(folder), saved as states, Interrupt() as interrupt:
    fingerprint = members[0].metadata['fingerprint']
    run = Run(
      members, settings, folder, fingerprint, frozen, own, step, evaluate, rungs, states, outputs,
      console, placement,
    )  # fmt: skip
    point = restore(run, begun, streams)
    if placement:
      for s in point.standings:
        s.state, s.constants = placement.put((s.state, s.constants), placement.replicated)
    _loop(run, point, streams, interrupt)
    results = _finish(run, point)
    if interrupt.signal:  # it came after the last step
      _leave(run, point, interrupt)
    return results


def _check(
  members: Sequence[Member],
  settings: Settings,
  evaluate: EvaluateTogether | None,
  rungs: Sequence[int],
) -> None:
  for m in members:
    missing = [name for name in REQUIRED if name not in m.metadata]
    if missing:
      raise ValueError(f'metadata lacks {", ".join(missing)}')
  if len({m.name for m in members}) < len(members):
    raise ValueError(f'Members share names: {", ".join(m.name for m in members)}')
  judged = evaluate is not None and all(m.metric is not None for m in members)
  if settings.patience is not None and not judged:
    raise UserError('patience needs validation examples to judge by; give some, or leave it out.')
  if rungs and not judged:
    raise UserError('halving needs validation examples to judge by; give some, or no rungs.')
  check_rungs(rungs, settings.steps, settings.eval_every)


def _split(
  members: Sequence[Member], backbone: Tree, settings: Settings
) -> tuple[list[Tree], Tree, list[Tree]]:
  """What trains of each member, what is frozen and shared, and what is frozen of each."""
  fresh, own = [], []
  frozen: Tree = {}
  for m in members:
    params = {'backbone': backbone, **({'prompt': m.prompt} if m.prompt else {})}
    trainable, rest = split(params, settings.patterns)
    if len(members) > 1 and 'backbone' in trainable:
      raise UserError(
        'Prompts that train together share a model that stays as it is, but the patterns '
        f'{", ".join(settings.patterns)} train it. Train the model in runs of their own.'
      )
    frozen = {'backbone': rest.pop('backbone')} if 'backbone' in rest else {}
    fresh.append(trainable)
    own.append(rest)
  return fresh, frozen, own


def _counts(trainables: Sequence[Tree], of_one: int) -> str:
  """How many parameters train, for the first line of a run."""
  n = count(trainables[0])
  if len(trainables) == 1:
    return f'{n:,} of {of_one:,} parameters train ({100 * n / of_one:.3g} %)'
  return f'{len(trainables)} prompts train together, {count(trainables):,} parameters in all'


def _loop(run: Run, point: Point, streams: Streams, interrupt: Interrupt) -> None:
  """Steps until the last one or until no member is left, with evaluations and saves in between."""
  settings = run.settings
  records = [Records(run.folder / m.name / 'metrics.jsonl', point.step) for m in run.members]
  if point.step >= settings.steps or not point.active:
    return
  put = run.placement.put_rows if run.placement else jax.device_put
  with (
    Ahead(run.step, calls.foreseen(run, point, streams, put)) as step,
    Progress(settings.steps, point.step, run.console) as progress,
    Prefetch(streams, settings.prefetch, put) as prefetched,
    Profile(
      settings.profile and processes.is_first(),
      run.folder / 'profile',
      point.step,
      settings.steps,
      progress,
    ) as profile,
  ):
    diverged = functools.partial(_diverged, run, point, progress)
    monitor = Monitor(records, progress, settings.log_every, diverged)
    if point.step == 0 and settings.eval_at_start and run.evaluate:
      judge(run, run.evaluate, point, records, progress)
    for batches, position in prefetched:
      with profile.step(point.step):
        metrics = calls.update(run, point, step, batches)
      point.step, point.position = point.step + 1, position
      profile.stepped(point.step, metrics)
      monitor.push(point.step, metrics)
      last = point.step == settings.steps
      value, improved = None, False
      if run.evaluate and (last or _due(point.step, settings.eval_every)):
        with monitor.paused():
          value, improved = judge(run, run.evaluate, point, records, progress)
          monitor.close(metrics.keys() - set(point.active))
      last = last or not point.active
      stop = interrupt.reached(point.step)
      if last or improved or stop or _due(point.step, settings.save_every):
        with monitor.paused():  # A state is saved only once its metrics were seen to be finite.
          save(run, point, value)
      if stop or last:
        monitor.close()
      if stop:
        _leave(run, point, interrupt)
      if last:
        return
  raise UserError(
    f'The data ended after step {point.step} of {settings.steps}. Give fewer steps or a stream '
    'that repeats.'
  )


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0


def _diverged(
  run: Run, point: Point, progress: Progress, member: int, step: int, what: str
) -> None:
  """Takes a member out; ends a run of which no other goes on or has come to its own end."""
  name = run.members[member].name
  point.standings[member].ended = Ended(step, 'diverged')
  if all(s.ended is not None and s.ended.why == 'diverged' for s in point.standings):
    whose = f' of {name}' if name else ''
    raise UserError(
      f'{what} at step {step}{whose}. Its state was not saved. Lower the learning rate, warm it '
      'up, or look at the data of that step; then begin in another output folder.'
    )
  progress.say(f'step {step}: {name} stops: {what}')


def _leave(run: Run, point: Point, interrupt: Interrupt) -> None:
  """Ends the process after a signal, once the state is on disk."""
  run.states.wait()
  name = signal.Signals(interrupt.exit_code - 128).name
  run.console.print(
    f'{name}: saved step {point.step}. The same command goes on from there.', highlight=False
  )
  raise SystemExit(interrupt.exit_code)


def _finish(run: Run, point: Point) -> list[Result]:
  """Waits for the run state, then writes the files of the last step and the curves."""
  run.states.wait()
  return [_finished(run, point, k) for k in range(len(run.members))]


def _finished(run: Run, point: Point, k: int) -> Result:
  standing, output, m = point.standings[k], run.outputs[k], run.members[k]
  trainable, folder, ended = standing.state.trainable, run.folder / m.name, standing.ended
  facts: dict[str, Any] = {'step': ended.step if ended else point.step}
  if ended is None or ended.why != 'diverged':
    chosen = standing.selection.step is not None
    output.write(output.last if chosen else output.best, trainable, facts)
  records = processes.broadcast(lambda: read_records(folder / 'metrics.jsonl'))
  if processes.is_first():
    plot_curve(records, folder / 'curve.png', m.metric)
  evaluated = [r for r in records if r['kind'] == 'eval']
  about = ('step', 'kind', 'seconds')
  return Result(
    step=facts['step'],
    metrics={k: v for k, v in evaluated[-1].items() if k not in about} if evaluated else {},
    selection=standing.selection,
    file=output.best,
    trainable=jax.device_get(trainable),
    folder=folder,
    ended=ended,
  )
