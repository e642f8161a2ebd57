"""One linear trainer: prompt tuning, model tuning and pre-training are patterns of the same run."""

import dataclasses
import functools
import os
import pathlib
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from rich.console import Console

from prompt_jax.checkpoints.prompt_file import REQUIRED, check_model, load_prompt
from prompt_jax.checkpoints.run_state import RunStates, from_arrays, to_arrays
from prompt_jax.errors import UserError
from prompt_jax.sharding.placement import Placement
from prompt_jax.training.interrupt import Interrupt
from prompt_jax.training.lock import Lock
from prompt_jax.training.losses import Loss
from prompt_jax.training.monitor import Monitor
from prompt_jax.training.output import Output, warm_start
from prompt_jax.training.partition import Tree, count, split
from prompt_jax.training.prefetch import Position, Prefetch, Stream
from prompt_jax.training.progress import Progress
from prompt_jax.training.records import Records, plot_curve, read_records
from prompt_jax.training.selection import Selection, metric_value
from prompt_jax.training.settings import Settings
from prompt_jax.training.step import TrainState, create_state, train_step

Evaluate = Callable[[Tree], Mapping[str, float]]


@dataclasses.dataclass(frozen=True)
class Result:
  """What a finished run leaves.

  Attributes:
    step: number of steps done.
    metrics: of the last evaluation, {} if there was none.
    selection: best value of the validation metric and its step; empty without a metric.
    file: the prompt file (or weights) of the best step; of the last without a metric.
    trainable: host arrays of the last step.
    folder: where everything is.
  """

  step: int
  metrics: dict[str, float]
  selection: Selection
  file: pathlib.Path
  trainable: Tree
  folder: pathlib.Path


@dataclasses.dataclass
class _Point:
  """Where a run stands: what is saved, and all that a step changes."""

  state: TrainState
  constants: Tree  # the collection of the model
  position: Position
  selection: Selection
  step: int


@dataclasses.dataclass(frozen=True)
class _Run:
  """What stays the same during a run, for the phases below."""

  settings: Settings
  folder: pathlib.Path
  fingerprint: str
  evaluate: Evaluate | None
  states: RunStates
  output: Output
  console: Console
  placement: Placement | None


def train(
  *,
  model: nn.Module,
  backbone: Tree,
  prompt: Tree,
  constants: Tree,
  stream: Stream,
  tx: optax.GradientTransformation,
  settings: Settings,
  folder: str | os.PathLike,
  metadata: dict[str, Any],
  loss: Loss | None = None,
  evaluate: Evaluate | None = None,
  console: Console | None = None,
  placement: Placement | None = None,
) -> Result:
  """Trains what `settings.patterns` says, from where the output folder stands.

  The same call again goes on after the last saved state, and ends with the bytes of a run that
  was never stopped (on the same machine). SIGTERM and Ctrl-C save, then exit with code 143 or 130.

  Args:
    model: `prompted.PromptedT5`, or a module with its `__call__`.
    backbone: its parameters, in the compute dtype where they are frozen.
    prompt: the method's fresh parameters, {} for the bare model.
    constants: the method's non-trainable state, {} for none.
    stream: batches of NumPy arrays; see `prefetch.Stream`.
    tx: the optimiser.
    settings: see `settings.Settings`.
    folder: of this run alone. It will hold state/ (to go on from), metrics.jsonl, curve.png,
      prompt.safetensors (or weights.safetensors), initial.safetensors, and last.safetensors where
      the best step may be another.
    metadata: of the prompt file: see `prompt_file.Prompt`. Its "fingerprint" is the backbone's.
    loss: what is minimised; T5X's cross entropy with z-loss if None.
    evaluate: from the trainable leaves on the device, which it must not keep, to metrics of the
      validation data.
    console: where to print.
    placement: the mesh, over which `backbone` already lies; None for one device.

  Raises:
    UserError: the folder belongs to another model or set-up, is in use or cannot be written; the
      loss is not finite; the data end early; patience without a metric; and what `split` and the
      optimiser refuse.
  """
  console = console or Console()
  folder = pathlib.Path(folder)
  missing = [name for name in REQUIRED if name not in metadata]
  if missing:
    raise ValueError(f'metadata lacks {", ".join(missing)}')
  if settings.patience is not None and (evaluate is None or settings.metric is None):
    raise UserError('patience needs validation examples to judge by; give some, or leave it out.')

  # Split, and put on the device: the frozen side as it is, the trainable side as float32.
  params = {'backbone': backbone, **({'prompt': prompt} if prompt else {})}
  trainable, frozen = split(params, settings.patterns)
  console.print(
    f'{count(trainable):,} of {count(params):,} parameters train '
    f'({100 * count(trainable) / count(params):.3g} %)',
    highlight=False,
  )
  frozen = jax.device_put(frozen, placement.of(frozen) if placement else None)
  collection = jax.device_put({'prompt': constants} if constants else {})
  state = create_state(trainable, tx, settings.seed)

  # Compile, at the first batch of each shape. Only the train state is donated.
  pure = functools.partial(
    train_step,
    model=model,
    tx=tx,
    loss=loss or Loss(),
    microbatches=settings.microbatches,
    dropout=settings.dropout,
  )
  step = jax.jit(placement.within(pure) if placement else pure, donate_argnums=0)

  # Restore, loop, finish.
  saved = RunStates(folder / 'state', settings.keep, settings.mode)
  with Lock(folder), saved as states, Interrupt() as interrupt:
    output = Output(folder, trainable, frozen, collection, {**metadata, 'seed': settings.seed})
    run = _Run(
      settings, folder, metadata['fingerprint'], evaluate, states, output, console, placement
    )
    point = _restore(run, state, collection, stream, metadata)
    if placement:
      whole = jax.device_put((point.state, point.constants), placement.whole)
      point.state, point.constants = whole
    _loop(run, point, step, frozen, stream, interrupt)
    result = _finish(run, point)
    if interrupt.signal:  # it came after the last step
      _leave(run, point, interrupt)
    return result


def _restore(
  run: _Run, state: TrainState, constants: Tree, stream: Stream, metadata: dict[str, Any]
) -> _Point:
  """Resume, else warm start, else fresh."""
  steps = run.states.steps()
  if steps and steps[-1] > run.settings.steps:
    raise UserError(
      f'The run in {str(run.folder)!r} has done {steps[-1]} steps, more than {run.settings.steps}. '
      'Give as many or more, or another output folder.'
    )
  if steps:
    point = _resume(run, steps[-1], state, constants)
    stream.restore(point.position)
    run.output.resume()
    run.console.print(f'Going on after step {point.step}', highlight=False)
    return point
  if run.settings.warm_start is not None:
    saved = load_prompt(run.settings.warm_start)
    check_model(
      saved,
      base_model=metadata['base_model'],
      fingerprint=run.fingerprint,
      width=metadata['width'],
      path=run.settings.warm_start,
    )
    fresh = warm_start(run.settings.warm_start, state.trainable)
    trainable = jax.tree.map(lambda x: jnp.array(x, jnp.float32), fresh)
    state = dataclasses.replace(state, trainable=trainable)
  run.output.begin(state.trainable)
  return _Point(state, constants, dict(stream.position), Selection(), step=0)


def _resume(run: _Run, step: int, state: TrainState, constants: Tree) -> _Point:
  """The saved state of a step, if it is of this model and this set-up."""
  arrays, info = run.states.restore(step)
  for what, saved, given in (
    ('model fingerprint', info['fingerprint'], run.fingerprint),
    ('seed', info['seed'], run.settings.seed),
  ):
    if saved != given:
      raise UserError(
        f'The run in {str(run.folder)!r} has the {what} {saved}, but {given} was given. '
        'Give what it was begun with, or another output folder.'
      )
  tree = from_arrays({'state': state, 'constants': constants}, arrays, str(run.folder))
  # Copies: a donated array must not share the memory of a NumPy one.
  tree = jax.tree.map(jnp.array, tree)
  selection = Selection(**info['selection'])
  return _Point(tree['state'], tree['constants'], info['position'], selection, step)


def _loop(
  run: _Run, point: _Point, step: Callable, frozen: Tree, stream: Stream, interrupt: Interrupt
) -> None:
  """Steps until the last one or until patience ends, with evaluations and saves in between."""
  settings = run.settings
  records = Records(run.folder / 'metrics.jsonl', point.step)
  if point.step >= settings.steps or point.selection.exhausted(settings.patience):
    return
  with (
    Progress(settings.steps, point.step, run.console) as progress,
    Prefetch(stream, settings.prefetch, run.placement and run.placement.rows) as batches,
  ):
    monitor = Monitor(records, progress, settings.log_every)
    if point.step == 0 and settings.eval_at_start and run.evaluate:
      _evaluate(run, run.evaluate, point, records, progress)
    for batch, position in batches:
      with jax.transfer_guard('disallow'):
        point.state, metrics = step(point.state, frozen, point.constants, batch)
      point.step, point.position = point.step + 1, position
      monitor.push(point.step, metrics, batch.encoder_input_tokens.shape[0])
      last = point.step == settings.steps
      value, improved = None, False
      if run.evaluate and (last or _due(point.step, settings.eval_every)):
        with monitor.paused():
          value, improved = _evaluate(run, run.evaluate, point, records, progress)
      last = last or point.selection.exhausted(settings.patience)
      if last or improved or interrupt.signal or _due(point.step, settings.save_every):
        with monitor.paused():  # A state is saved only once its metrics were seen to be finite.
          _save(run, point, value)
      if interrupt.signal or last:
        monitor.close()
      if interrupt.signal:
        _leave(run, point, interrupt)
      if last:
        return
  raise UserError(
    f'The data ended after step {point.step} of {settings.steps}. Give fewer steps or a stream '
    'that repeats.'
  )


def _due(step: int, every: int) -> bool:
  return every > 0 and step % every == 0


def _evaluate(
  run: _Run, evaluate: Evaluate, point: _Point, records: Records, progress: Progress
) -> tuple[float | None, bool]:
  """Evaluates, records, and writes the prompt file if it is the best; (value, improved)."""
  began = time.monotonic()
  metrics = {name: float(v) for name, v in evaluate(point.state.trainable).items()}
  seconds = time.monotonic() - began
  records.add(point.step, 'eval', {**metrics, 'seconds': seconds})
  shown = '  '.join(f'{name} {v:.4g}' for name, v in metrics.items())
  settings = run.settings
  if settings.metric is None:
    progress.say(f'step {point.step}: {shown}')
    return None, False
  value = metric_value(metrics, settings.metric)
  before = point.selection
  point.selection = before.updated(point.step, value, settings.mode)
  improved = point.selection.step == point.step
  progress.say(f'step {point.step}: {shown}{"  (best so far)" if improved else ""}')
  if improved:
    facts = {'step': point.step, 'metric': settings.metric, 'value': value}
    run.output.write(run.output.best, point.state.trainable, facts)
  return value, improved


def _save(run: _Run, point: _Point, value: float | None) -> None:
  """Begins to save the run state of this step."""
  info = {
    'fingerprint': run.fingerprint,
    'seed': run.settings.seed,
    'position': point.position,
    'selection': dataclasses.asdict(point.selection),
  }
  arrays = to_arrays({'state': point.state, 'constants': point.constants})
  run.states.save(point.step, arrays, info, value)


def _leave(run: _Run, point: _Point, interrupt: Interrupt) -> None:
  """Ends the process after a signal, once the state is on disk."""
  run.states.wait()
  name = signal.Signals(interrupt.exit_code - 128).name
  run.console.print(
    f'{name}: saved step {point.step}. The same command goes on from there.', highlight=False
  )
  raise SystemExit(interrupt.exit_code)


def _finish(run: _Run, point: _Point) -> Result:
  """Waits for the run state, then writes the files of the last step and the curve."""
  run.states.wait()
  output, trainable = run.output, point.state.trainable
  facts: dict[str, Any] = {'step': point.step}
  if point.selection.step is None:
    output.write(output.best, trainable, facts)
  else:
    output.write(output.last, trainable, facts)
  records = read_records(run.folder / 'metrics.jsonl')
  plot_curve(records, run.folder / 'curve.png', run.settings.metric)
  evaluated = [r for r in records if r['kind'] == 'eval']
  about = ('step', 'kind', 'seconds')
  return Result(
    step=point.step,
    metrics={k: v for k, v in evaluated[-1].items() if k not in about} if evaluated else {},
    selection=point.selection,
    file=output.best,
    trainable=jax.device_get(trainable),
    folder=run.folder,
  )
