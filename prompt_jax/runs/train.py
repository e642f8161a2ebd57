"""`prompt-jax train`: tune a prompt, or more, on a frozen model. The phases are in order."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import optax
from rich.console import Console

from prompt_jax import loading
from prompt_jax.configuration import config
from prompt_jax.data.batches import BatchStream
from prompt_jax.data.example import Example, Lengths, Task
from prompt_jax.data.mixture import quotas
from prompt_jax.errors import UserError
from prompt_jax.evaluation.comparison import described
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.evaluation.predictions import write_predictions
from prompt_jax.evaluation.suite import Suite
from prompt_jax.loading import BaseModel
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5, variables_of
from prompt_jax.runs import score_table, task_prompts
from prompt_jax.runs.devices import Devices, on_mesh
from prompt_jax.runs.packing import Packing, packed_stream
from prompt_jax.runs.setup import (
  Setup,
  check_positions,
  evaluator_of,
  fresh_prompt,
  metadata_of,
  metric_of,
  set_up,
  write_events,
)
from prompt_jax.runtime import processes
from prompt_jax.training import loop
from prompt_jax.training.losses import Loss
from prompt_jax.training.objective import CrossEntropy
from prompt_jax.training.optim import Update
from prompt_jax.training.partition import count, merge, split
from prompt_jax.training.settings import Settings
from prompt_jax.training.streams import Stream


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
  lengths: Lengths,
  max_positions: int,
  seed: int,
  seeds: Sequence[int] | None,
) -> None:
  """Trains once a seed, measures the test split, and writes everything into the output folder.

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
    lengths: most tokens of an input and of a target.
    max_positions: of the encoder, prompt rows and tokens together.
    seed: of the only run, or
    seeds: of several runs, in folders of their own.
  """
  console = Console(quiet=not processes.is_first())
  placement = devices.start()
  folder = pathlib.Path(output or f'runs/{task.name}')
  if seeds and len(set(seeds)) < len(seeds):
    raise UserError(f'The seeds {", ".join(map(str, seeds))} repeat; each is one run.')
  if base.weights and any(pattern != 'prompt/.*' for pattern in settings.patterns):
    raise UserError(
      'Weights in int8 cannot be trained: leave WEIGHTS out, or train the prompt only.'
    )
  settings = on_mesh(settings, placement, base, batch_size, packing.on)
  may_change = ('STEPS', 'MESH', 'LAYOUT', 'SLICES')
  processes.broadcast(lambda: config.record(folder, may_change))
  setup = set_up(base, placement, task, prompt, lengths, dropout, console)
  evaluator = evaluator_of(setup, setup.model, batch_size)

  results = []
  for number in seeds or [seed]:
    if seeds:
      console.rule(f'seed {number}')
    results.append(
      _tuned(
        setup,
        evaluator,
        dataclasses.replace(
          settings, seed=number, metric=metric_of(setup, settings), dropout=dropout > 0
        ),
        optimizer=optimizer,
        loss=loss,
        packing=packing,
        batch_size=batch_size,
        max_positions=max_positions,
        folder=folder / f'seed_{number}' if seeds else folder,
      )
    )
  _report(setup, evaluator, results, folder, batch_size)


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
) -> loop.Result:
  """One run, of the seed in its settings."""
  prompt, constants = fresh_prompt(setup, settings.seed)
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
    metadata=metadata_of(setup, settings),
    evaluate=_validation(setup, evaluator, params, constants, settings),
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
  numbers = task_prompts.numbers(setup.model.prompt, setup.task)
  if not packing.on:
    return BatchStream(examples, batch_size, settings.seed, task_ids=numbers, quota=quota)
  microbatches = settings.microbatches or 1
  stream = packed_stream(
    setup.model,
    variables,
    examples,
    packing,
    batch_size=batch_size,
    seed=settings.seed,
    row_multiple=microbatches * (setup.placement.row_parts if setup.placement else 1),
    task_ids=numbers,
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
  if 'validation' not in setup.examples:
    return None
  _, frozen = split(params, settings.patterns)
  if setup.placement:
    frozen, constants = setup.placement.replicate((frozen, constants))

  def evaluate(trainable: Any) -> dict[str, float]:
    variables = variables_of(merge(trainable, frozen), constants)
    return evaluator(variables, setup.examples['validation'])[0]

  return evaluate


def _report(
  setup: Setup,
  evaluator: Evaluator | Suite,
  results: Sequence[loop.Result],
  folder: pathlib.Path,
  batch_size: int,
) -> None:
  """Measures what was tuned beside what needs no tuning, on examples that chose nothing."""
  which = next((s for s in ('test', 'validation') if s in setup.examples), None)
  measured = None
  if which is not None:
    measured = _measured(setup, evaluator, results, setup.examples[which], batch_size)
  # One of several processes is enough for the rest, and the others wait for it.
  processes.broadcast(lambda: _tell(setup, results, which, measured, folder))


def _tell(
  setup: Setup,
  results: Sequence[loop.Result],
  which: str | None,
  measured: tuple[dict[str, float], list[dict[str, float]]] | None,
  folder: pathlib.Path,
) -> None:
  """The table, and where everything is."""
  console, best = setup.console, results[0].file
  kind = loading.kind_of(best)
  if which is not None and measured is not None:
    untuned, scores = measured
    examples = setup.examples[which]
    table = score_table.baselines(setup.examples['train'], examples, setup.task)
    table.append(score_table.SystemScores('the model, untuned', [untuned], 0))
    what = 'tuned prompt' if kind == 'prompt' else 'tuned weights'
    table.append(score_table.SystemScores(what, scores, count(results[0].trainable)))
    tasks = described(setup.task)
    score_table.write_scores(
      folder / 'results.json', table, task=setup.task.name, split=which, tasks=tasks
    )
    title = f'{setup.task.name}, {len(examples)} {which} examples, in percent'
    score_table.print_scores(table, title, console, setup.task.parts)
  console.print(f'{best.stem.capitalize()} file: {best}', soft_wrap=True, highlight=False)
  for result in results:
    if prompts := task_prompts.write(result.file, setup.task.parts, setup.backbone.config):
      console.print(f'The prompt of each task: {prompts}', soft_wrap=True, highlight=False)
  console.print(f'Learning curve: {best.parent / "curve.png"}', soft_wrap=True, highlight=False)
  line = loading.command(best, setup.model_name)
  console.print(f'Use it: {line}', soft_wrap=True, highlight=False, markup=False)


def _measured(
  setup: Setup,
  evaluator: Evaluator | Suite,
  results: Sequence[loop.Result],
  examples: Sequence[Example],
  batch_size: int,
) -> tuple[dict[str, float], list[dict[str, float]]]:
  """Scores of the model without a prompt, and of each run."""
  bare = PromptedT5(T5(setup.backbone.config))
  variables = {'params': {'backbone': setup.backbone.params}}
  untuned = evaluator_of(setup, bare, batch_size)(variables, examples)[0]
  scores = []
  for result in results:
    ready = loading.attach(setup.backbone, result.file, setup.placement)
    found, predictions = evaluator(ready.variables, examples)
    if processes.is_first():
      write_predictions(result.folder / 'predictions.jsonl', predictions)
    scores.append(found)
  return untuned, scores
