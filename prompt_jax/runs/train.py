"""Tune a prompt, or more, on a frozen model. The phases are in order."""

import collections
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import optax
from rich.console import Console

from prompt_jax.checkpoints import on_disk
from prompt_jax.configuration import description
from prompt_jax.data.batches import BatchStream
from prompt_jax.data.example import Task
from prompt_jax.data.mixture import quotas
from prompt_jax.errors import UserError
from prompt_jax.evaluation.comparison import Verdict, to_try
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.evaluation.findings import UNTUNED, baselines
from prompt_jax.evaluation.predictions import answers_digest, progress_bar, write_predictions
from prompt_jax.evaluation.suite import Suite, f1_label, task_facts
from prompt_jax.loading import BaseModel, Devices, adds_only_rows, attach, command
from prompt_jax.prompted import variables_of
from prompt_jax.runs import score_table, task_choice
from prompt_jax.runs.packing import Packing, packed_stream
from prompt_jax.runs.record import Record
from prompt_jax.runs.results import Scores, SystemScores, TrainedPrompt, TrainResult
from prompt_jax.runs.setup import (
  JUDGES,
  Setup,
  check_positions,
  console_of,
  evaluator_of,
  fresh_prompt,
  metadata_of,
  metric_of,
  on_mesh,
  set_up,
  trained_prompt,
  with_judges,
  write_curve,
  write_events,
)
from prompt_jax.runs.untuned import Untuned, on_validation, verdicts_of
from prompt_jax.runtime import processes
from prompt_jax.training import loop
from prompt_jax.training.choice import choose_on_all
from prompt_jax.training.losses import Loss
from prompt_jax.training.members import metric_value
from prompt_jax.training.objective import CrossEntropy, count, merge, split
from prompt_jax.training.optim import Update
from prompt_jax.training.settings import Settings
from prompt_jax.training.streams import Stream

# Settings that a run which goes on may have anew.
MAY_CHANGE = ('STEPS', 'MESH', 'LAYOUT', 'SLICES')


def train(
  *,
  base: BaseModel,
  devices: Devices,
  task: Task,
  prompt: nn.Module | None,
  output: str | None,
  settings: Settings,
  optimizer: optax.GradientTransformation,
  loss: Loss,
  dropout: float,
  batch_size: int,
  packing: Packing,
  input_length: int | None,
  target_length: int,
  validation_examples: int | None,
  max_positions: int,
  seed: int,
  seeds: Sequence[int] | None,
  record: Record,
  console: Console | None = None,
) -> TrainResult:
  """Trains once a seed, measures the test split, and writes everything into the output folder.

  Called again it resumes what is in the folder, which must have been begun with the same record.

  Args:
    base: the model.
    devices: where to compute.
    task: what to learn.
    prompt: the method; None for the bare model.
    output: folder for results; None for runs/ and the task's name.
    settings: see `training.settings.Settings`; its seed is that of each run.
    optimizer: of the trainable leaves.
    loss: what is minimised.
    dropout: probability with which the model drops out while it trains.
    batch_size: examples a step.
    packing: whether and how they share rows.
    input_length: most tokens of an input; None for `splits.default_length`.
    target_length: most tokens of a target.
    validation_examples: see `splits.judges`.
    max_positions: of the encoder, prompt rows and tokens together.
    seed: of the only run, or
    seeds: of several runs, in folders of their own.
    record: all of these settings as text.
    console: where to print; None is silent.

  Raises:
    UserError: settings that exclude each other, or another record than the folder's; else see
      `training.loop.train`.
  """
  placement = devices.start()
  console = console_of(console)
  folder = pathlib.Path(output or f'runs/{task.name}')
  _check(base, settings, seeds)
  settings = dataclasses.replace(settings, dropout=dropout > 0)
  settings = on_mesh(settings, placement, base, batch_size, packing.on)
  # Of every seed before the first of them trains.
  of_seeds = [dataclasses.replace(settings, seed=number) for number in seeds or [seed]]
  processes.broadcast(lambda: record.check(folder, MAY_CHANGE))
  record.show(console)
  setup = set_up(base, placement, task, prompt, (input_length, target_length), dropout, console)
  setup = with_judges(setup, validation_examples, settings, batch_size)
  evaluator = evaluator_of(setup, setup.model, batch_size)

  results = []
  for of_seed in of_seeds:
    if seeds:
      console.rule(f'seed {of_seed.seed}')
    results.append(
      _tuned(
        setup,
        evaluator,
        dataclasses.replace(of_seed, metric=metric_of(setup, settings)),
        optimizer=optimizer,
        loss=loss,
        packing=packing,
        batch_size=batch_size,
        max_positions=max_positions,
        folder=folder / f'seed_{of_seed.seed}' if seeds else folder,
        settings_text=record.text,
        begun=lambda: record.write(folder),
      )
    )
  results = _chosen(setup, evaluator, results, settings.mode)
  measured, lines = _measured(setup, evaluator, results, batch_size)
  # One of several processes is enough for the rest, and the others wait for it.
  processes.broadcast(lambda: _conclude(setup, results, measured, lines, folder, record))
  return TrainResult(folder, _prompts(results, of_seeds, lines), measured)


def _prompts(
  results: Sequence[loop.Result], of_seeds: Sequence[Settings], lines: Mapping[str, float]
) -> list[TrainedPrompt]:
  of_each = zip(results, of_seeds, strict=True)
  return [trained_prompt(r, s.seed, on_validation=lines) for r, s in of_each]


def _check(base: BaseModel, settings: Settings, seeds: Sequence[int] | None) -> None:
  if seeds and len(set(seeds)) < len(seeds):
    raise UserError(f'The seeds {", ".join(map(str, seeds))} repeat; each is one run.', ['seeds'])
  if base.weights and any(pattern != 'prompt/.*' for pattern in settings.patterns):
    raise UserError(
      'Weights in int8 cannot be trained: leave them in another dtype, or train the prompt only.',
      parameters=['weights', 'train'],
    )


def _tuned(
  setup: Setup,
  evaluator: Evaluator | Suite,
  settings: Settings,
  *,
  optimizer: optax.GradientTransformation,
  loss: Loss,
  packing: Packing,
  batch_size: int,
  max_positions: int,
  folder: pathlib.Path,
  settings_text: str,
  begun: Callable[[], None],
) -> loop.Result:
  """One run, of the seed in its settings."""
  prompt, constants = fresh_prompt(setup, settings.seed, settings.warm_start)
  params = {'backbone': setup.backbone.params, **({'prompt': prompt} if prompt else {})}
  check_positions(setup, params, constants, max_positions)
  result = loop.train(
    objective=CrossEntropy(setup.model, loss, settings.dropout),
    update=Update(optimizer),
    backbone=setup.backbone.params,
    prompt=prompt,
    constants=constants,
    stream=_stream(setup, variables_of(params, constants), packing, batch_size, settings),
    settings=settings,
    folder=folder,
    metadata=metadata_of(setup, settings, settings_text),
    evaluate=_validation(setup, evaluator, params, constants, settings),
    judged_on=answers_digest(setup.examples.get(JUDGES, ())),
    begun=begun,
    console=setup.console,
    placement=setup.placement,
  )
  if processes.is_first():
    write_events(result.folder)
  return result


def _stream(
  setup: Setup, variables: dict[str, Any], packing: Packing, batch_size: int, settings: Settings
) -> Stream:
  """The training batches, and a word on the shape of packed ones."""
  examples = setup.examples['train']
  quota = _quota(setup)
  if not packing.on:
    return BatchStream(examples, batch_size, settings.seed, features=setup.features, quota=quota)
  microbatches = settings.microbatches or 1
  stream = packed_stream(
    setup.model,
    variables,
    examples,
    packing,
    batch_size=batch_size,
    seed=settings.seed,
    row_multiple=microbatches * (setup.placement.row_parts if setup.placement else 1),
    features=setup.features,
    quota=quota,
  )
  rows, inputs, targets = stream.shape
  setup.console.print(
    f'Packed: {batch_size} examples a step in {rows} rows of {inputs} positions, and of {targets} '
    f'in the decoder; {100 * stream.filled:.0f} % of the former are filled',
    highlight=False,
  )
  return stream


def _quota(setup: Setup) -> dict[str, int] | None:
  """Examples of each task of a mixture in an epoch, printed as shares; None for one task."""
  task = setup.task
  if task.mixing is None:
    return None
  sizes = collections.Counter(e.task for e in setup.examples['train'])
  quota = quotas({part.name: sizes[part.name] for part in task.parts}, task.mixing)
  total = sum(quota.values())
  said = ', '.join(f'{name} {100 * n / total:.1f} %' for name, n in quota.items())
  setup.console.print(f'Mixture: {said}', highlight=False)
  return quota


def _validation(
  setup: Setup, evaluator: Evaluator | Suite, params: Any, constants: Any, settings: Settings
) -> loop.Evaluate | None:
  """From the leaves that train to the scores of the validation split."""
  if JUDGES not in setup.examples:
    return None
  _, frozen = split(params, settings.patterns)
  if setup.placement:
    frozen, constants = setup.placement.replicate((frozen, constants))

  def evaluate(trainable: Any) -> dict[str, float]:
    variables = variables_of(merge(trainable, frozen), constants)
    with progress_bar(len(setup.examples[JUDGES]), 'validation', setup.console) as advance:
      return evaluator(variables, setup.examples[JUDGES], advance)[0]

  return evaluate


def _chosen(
  setup: Setup, evaluator: Evaluator | Suite, results: Sequence[loop.Result], mode: str
) -> list[loop.Result]:
  """The results, with the best step chosen on all validation examples if a sample chose before."""
  examples = setup.examples.get('validation', ())
  if len(setup.examples.get(JUDGES, ())) == len(examples):
    return list(results)

  def measure(candidates: Sequence[tuple[int, pathlib.Path]]) -> list[float]:
    found = []
    for k, path in candidates:
      ready = attach(setup.backbone, path, setup.placement)
      title = f'all validation examples, {path.name}'
      with progress_bar(len(examples), title, setup.console) as advance:
        scores = evaluator(ready.variables, examples, advance)[0]
      found.append(metric_value(scores, results[k].metric or ''))
    return found

  return choose_on_all(results, measure, mode, len(examples), setup.console)


def _measured(
  setup: Setup,
  evaluator: Evaluator | Suite,
  results: Sequence[loop.Result],
  batch_size: int,
) -> tuple[Scores, dict[str, float]]:
  """What was tuned beside what needs no tuning, on examples that selected nothing.

  Returns:
    The scores, and those of the baselines on the examples of the curve.
  """
  split = next((s for s in ('test', 'validation') if s in setup.examples), None)
  if split is None:
    return Scores(setup.task.name, None), {}
  examples = setup.examples[split]
  scores, answers = [], []
  for result in results:
    ready = attach(setup.backbone, result.file, setup.placement)
    with progress_bar(len(examples), f'{setup.task.name} {split}', setup.console) as advance:
      found, predictions = evaluator(ready.variables, examples, advance)
    scores.append(found)
    answers.append(predictions)
  untuned = Untuned(setup, batch_size)
  bare = untuned(examples)
  tuned = f'tuned {results[0].file.stem}'

  def systems() -> tuple[list[SystemScores], list[Verdict]]:
    train, task = setup.examples['train'], setup.task
    first = score_table.with_intervals(tuned, evaluator, examples, scores[0], answers[0])
    found = [
      *(SystemScores(name, [of]) for name, of in baselines(train, examples, task).items()),
      score_table.with_intervals(UNTUNED, evaluator, examples, *bare, trained=0),
      dataclasses.replace(
        first, scores=scores, trained=count(results[0].trainable),
        intervals=first.intervals if len(results) == 1 else {},
      ),
    ]  # fmt: skip
    return found, verdicts_of(setup, examples, bare[1], answers)

  # One of several processes is enough for the bootstrap, and the others wait for it.
  table, verdict = processes.broadcast(systems)
  lines = on_validation(setup, untuned, results[0].metric)
  return Scores(setup.task.name, split, table, {tuned: answers}, verdict), lines


def _conclude(
  setup: Setup,
  results: Sequence[loop.Result],
  measured: Scores,
  lines: Mapping[str, float],
  folder: pathlib.Path,
  record: Record,
) -> None:
  """Writes the predictions and the table, and prints where everything is."""
  console, best = setup.console, results[0].file
  folders = {folder, *(result.folder for result in results)}
  on_disk.unseal(*folders)
  for result in results:
    write_curve(result, lines)
  for predictions in measured.predictions.values():
    for result, of_seed in zip(results, predictions, strict=True):
      write_predictions(result.folder / 'predictions.jsonl', of_seed)
  if measured.split is not None:
    n = len(setup.examples[measured.split])
    facts = {
      'task': measured.task,
      'split': measured.split,
      'examples': n,
      'tasks': task_facts(setup.task),
      'verdicts': [verdict.facts() for verdict in measured.verdicts],
      'on_validation': lines,
    }
    score_table.write_scores(folder / 'results.json', measured.systems, **facts)
    title = f'{measured.task}, {n} {measured.split} examples, in percent{f1_label(setup.task)}'
    score_table.print_scores(measured.systems, title, console, setup.task.parts)
  _say_verdicts(setup, results, measured, record)
  on_disk.seal_all(folders)
  say = functools.partial(console.print, soft_wrap=True, highlight=False, markup=False)
  say(f'{best.stem.capitalize()} file: {best}')
  parts, to_use = setup.task.parts or (setup.task,), best
  for result in results:
    if prompts := task_choice.write_task_prompts(result.file, parts, setup.backbone.config.sizes):
      say(f'The prompt of each task: {prompts}')
      to_use = prompts / task_choice.task_file_name(parts[0]) if result is results[0] else to_use
  say(f'Learning curve: {best.parent / "curve.png"}')
  say(f'Use it: {command(to_use, setup.model_name, setup.vocabulary)}')


def _say_verdicts(
  setup: Setup, results: Sequence[loop.Result], measured: Scores, record: Record
) -> None:
  """Says it where what was tuned is no better than a baseline, and what to try."""
  say = functools.partial(setup.console.print, soft_wrap=True, highlight=False, markup=False)
  worse = [verdict for verdict in measured.verdicts if not verdict.better]
  for verdict in worse:
    say(str(verdict))
  if worse:
    rate = description.value_of(record.settings, 'LEARNING_RATE')
    say(
      to_try(
        recommended=record.recommended,
        only_rows=adds_only_rows(setup.model.prompt, results[0].file, setup.backbone.config.sizes),
        rising=any(r.selection.step == r.step for r in results),
        learning_rate=rate if isinstance(rate, int | float) else None,
        cut=setup.cut,
      )
    )
