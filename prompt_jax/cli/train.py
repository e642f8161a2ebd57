"""`prompt-jax train`: tune a prompt, or more, on a frozen model. The phases are in order."""

import argparse
import dataclasses
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import optax
from rich.console import Console

from prompt_jax.checkpoints.backbone import Backbone, load_backbone
from prompt_jax.checkpoints.method import describe
from prompt_jax.checkpoints.source import find, whole_path
from prompt_jax.cli import config, report, tuned
from prompt_jax.cli.device import choose as choose_device
from prompt_jax.data.batches import BatchStream
from prompt_jax.data.example import Example, Lengths, Task
from prompt_jax.errors import UserError, unknown
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.evaluation.metrics import scores_of
from prompt_jax.evaluation.report import write_predictions
from prompt_jax.evaluation.tensorboard import EventFile
from prompt_jax.injections import prefix_length
from prompt_jax.models.config import with_dropout
from prompt_jax.models.int8 import wide
from prompt_jax.models.t5 import T5
from prompt_jax.prompted import PromptedT5, variables_of
from prompt_jax.prompts.initialise import initialise_prompt
from prompt_jax.prompts.initializers import ClassLabels
from prompt_jax.sharding import placement as meshes
from prompt_jax.sharding.placement import Placement
from prompt_jax.training import loop
from prompt_jax.training.losses import Loss
from prompt_jax.training.partition import count, merge, split
from prompt_jax.training.records import read_records
from prompt_jax.training.settings import Settings


def run(args: argparse.Namespace) -> None:
  includes = []
  if args.train == ['all']:
    for name in ('prompt', 'init', 'length'):
      if getattr(args, name) is not None:
        raise UserError(f'--{name} is of a prompt, and --train all tunes the model without one.')
    includes.append(('runs', 'model_tuning'))
    args.train = None
  elif args.train is not None:
    args.train = ['prompt/.*' if p == 'prompt' else p for p in args.train]
  includes += [('prompts', args.prompt)] if args.prompt else []
  includes += [('inits', args.init)] if args.init else []
  config.load(args, train, includes)()


@dataclasses.dataclass(frozen=True)
class _Setup:
  """What every seed of a run shares."""

  backbone: Backbone
  model: PromptedT5
  task: Task
  lengths: Lengths
  examples: dict[str, Sequence[Example]]
  model_name: str
  vocabulary: str | None
  console: Console
  placement: Placement | None


def train(
  *,
  model: str,
  vocabulary: str | None,
  task: Task,
  prompt: nn.Module | None,
  output: str | None,
  settings: Settings,
  optimizer: optax.GradientTransformation,
  loss: Loss,
  dropout: float,
  batch_size: int,
  input_length: int,
  target_length: int,
  seed: int,
  seeds: Sequence[int] | None,
  device: str,
  mesh: Sequence[int] | None,
  layout: str,
  dtype: str | None,
  weights: str | None,
  query_chunk: int | None,
  scores_dtype: str,
  max_positions: int,
) -> None:
  """Trains once a seed, measures the test split, and writes everything into the output folder.

  Args:
    model: see `load_backbone`.
    vocabulary: see `load_backbone`.
    task: what to learn.
    prompt: the method; None for the bare model.
    output: folder for results; None for runs/ and the task's name.
    settings: see `training.settings.Settings`; its seed is that of each run.
    optimizer: of the trainable leaves.
    loss: what is minimised.
    dropout: probability with which the model drops out while it trains.
    batch_size: examples a step.
    input_length: most tokens of an input.
    target_length: most tokens of a target.
    seed: of the only run, or
    seeds: of several runs, in folders of their own.
    device: see `cli.device`.
    mesh: (data, model) devices along each axis; None for one device.
    layout: how the model and batches lie on the mesh, see `sharding.layouts.LAYOUTS`.
    dtype: see `load_backbone`.
    weights: "int8" to store the frozen matrices so; None for `dtype`.
    query_chunk: see `models.config.T5Config`.
    scores_dtype: see `models.config.T5Config`.
    max_positions: most encoder positions, prompt rows and tokens together.
  """
  console = Console()
  platform = choose_device(device).platform
  placement = meshes.make(mesh, layout, jax.devices(platform))
  folder = pathlib.Path(output or f'runs/{task.name}')
  if seeds and len(set(seeds)) < len(seeds):
    raise UserError(f'The seeds {", ".join(map(str, seeds))} repeat; each is one run.')
  if placement:
    settings = _on_mesh(settings, placement, model, vocabulary, batch_size)
  config.record(folder, may_change=('DEVICE', 'STEPS', 'MESH', 'LAYOUT'))
  lengths = Lengths(input_length, target_length)
  backbone = _load(
    model, vocabulary, dtype, weights, dropout, query_chunk, scores_dtype, settings, placement
  )
  setup = _set_up(backbone, model, vocabulary, task, prompt, lengths, console, placement)
  evaluator = _evaluator(setup, setup.model, batch_size)

  results = []
  for number in seeds or [seed]:
    if seeds:
      console.rule(f'seed {number}')
    of_run = dataclasses.replace(
      settings, seed=number, metric=_metric(setup, settings), dropout=dropout > 0
    )
    embedding = wide(setup.backbone.params['token_embedder']['embedding'])
    rows, constants = initialise_prompt(
      setup.model, jax.random.key(number), embedding, setup.backbone.vocabulary
    )
    params = {'backbone': setup.backbone.params, **({'prompt': rows} if rows else {})}
    _check_positions(setup, params, constants, max_positions)
    result = loop.train(
      model=setup.model,
      backbone=setup.backbone.params,
      prompt=rows,
      constants=constants,
      stream=BatchStream(setup.examples['train'], batch_size, seed=number),
      tx=optimizer,
      settings=of_run,
      folder=folder / f'seed_{number}' if seeds else folder,
      metadata=_metadata(setup, of_run),
      loss=loss,
      evaluate=_validation(setup, evaluator, params, constants, of_run),
      console=console,
      placement=placement,
    )
    _write_events(result.folder)
    results.append(result)

  _report(setup, evaluator, results, folder, batch_size)


def _on_mesh(
  settings: Settings, placement: Placement, model: str, vocabulary: str | None, batch_size: int
) -> Settings:
  """The settings for a mesh; refuses one over which model or batch do not divide."""
  # What suits the caches of one device says nothing of a mesh.
  microbatches = settings.microbatches or 1
  _, leaves = find(model, vocabulary).model()
  shapes = {path: leaf.shape for path, leaf in leaves.items()}
  placement.check(shapes, batch_size // microbatches)
  return dataclasses.replace(settings, microbatches=microbatches)


def _load(
  model: str,
  vocabulary: str | None,
  dtype: str | None,
  weights: str | None,
  dropout: float,
  query_chunk: int | None,
  scores_dtype: str,
  settings: Settings,
  placement: Placement | None,
) -> Backbone:
  """Reads the model, onto the mesh where there is one, to be computed with as the user says."""
  if weights not in (None, 'int8'):
    raise UserError(f'WEIGHTS is {weights!r}; expected None or int8.')
  if weights and any(pattern != 'prompt/.*' for pattern in settings.patterns):
    raise UserError(
      'Weights in int8 cannot be trained: leave WEIGHTS out, or train the prompt only.'
    )
  backbone = load_backbone(
    model,
    dtype,
    vocabulary=vocabulary,
    int8=weights == 'int8',
    **({'place': placement.put_backbone_leaf} if placement else {}),  # type: ignore[arg-type]
  )
  architecture = dataclasses.replace(
    with_dropout(backbone.config, dropout), query_chunk=query_chunk, scores_dtype=scores_dtype
  )
  return dataclasses.replace(backbone, config=architecture)


def _evaluator(setup: _Setup, model: PromptedT5, batch_size: int) -> Evaluator:
  return Evaluator(
    model,
    setup.backbone.vocabulary,
    setup.task,
    max_target_length=setup.lengths.targets,
    batch_size=batch_size,
    placement=setup.placement,
  )


def _metric(setup: _Setup, settings: Settings) -> str | None:
  """The validation score that selects the best step; none without validation examples."""
  if 'validation' not in setup.examples:
    return None
  known = scores_of(setup.task.metrics)
  # The scores of a measure of the task's own are known only once they are there.
  if settings.metric and setup.task.score is None and settings.metric not in known:
    raise unknown(f'score of {setup.task.name!r} to select by (METRIC)', settings.metric, known)
  return settings.metric or known[0]


def _validation(
  setup: _Setup, evaluator: Evaluator, params: Any, constants: Any, settings: Settings
) -> loop.Evaluate | None:
  """From the leaves that train to the scores of the validation split."""
  if 'validation' not in setup.examples:
    return None
  _, frozen = split(params, settings.patterns)

  def evaluate(trainable: Any) -> dict[str, float]:
    variables = variables_of(merge(trainable, frozen), constants)
    return evaluator(variables, setup.examples['validation'])[0]

  return evaluate


def _write_events(folder: pathlib.Path) -> None:
  """The records of a run once more, for TensorBoard."""
  shutil.rmtree(folder / 'tensorboard', ignore_errors=True)
  events = EventFile(folder / 'tensorboard')
  for record in read_records(folder / 'metrics.jsonl'):
    scalars = {k: v for k, v in record.items() if k not in ('step', 'kind')}
    events.add(record['step'], {f'{record["kind"]}/{k}': v for k, v in scalars.items()})


def _report(
  setup: _Setup,
  evaluator: Evaluator,
  results: Sequence[loop.Result],
  folder: pathlib.Path,
  batch_size: int,
) -> None:
  """Measures what was tuned beside what needs no tuning, on examples that chose nothing."""
  console = setup.console
  which = next((s for s in ('test', 'validation') if s in setup.examples), None)
  if which is not None:
    examples = setup.examples[which]
    table = report.baselines(setup.examples['train'], examples)
    bare = PromptedT5(T5(setup.backbone.config))
    variables = {'params': {'backbone': setup.backbone.params}}
    untuned = _evaluator(setup, bare, batch_size)(variables, examples)[0]
    table.append(report.Row('the model, untuned', [untuned], 0))
    scores = []
    for result in results:
      ready = tuned.attach(setup.backbone, result.file)
      found, predictions = evaluator(ready.variables, examples)
      write_predictions(result.folder / 'predictions.jsonl', predictions)
      scores.append(found)
    what = 'tuned prompt' if tuned.kind_of(results[0].file) == 'prompt' else 'tuned weights'
    table.append(report.Row(what, scores, count(results[0].trainable)))
    report.write(folder / 'results.json', table, task=setup.task.name, split=which)
    title = f'{setup.task.name}, {len(examples)} {which} examples, in percent'
    report.show(table, title, console)
  best = results[0].file
  console.print(f'{best.stem.capitalize()} file: {best}', soft_wrap=True, highlight=False)
  console.print(f'Learning curve: {best.parent / "curve.png"}', soft_wrap=True, highlight=False)
  line = tuned.command(best, setup.model_name)
  console.print(f'Use it: {line}', soft_wrap=True, highlight=False, markup=False)


def _set_up(
  backbone: Backbone,
  model_name: str,
  vocabulary: str | None,
  task: Task,
  prompt: nn.Module | None,
  lengths: Lengths,
  console: Console,
  placement: Placement | None,
) -> _Setup:
  """Reads the examples, before anything is computed."""
  loaded = {s: task.load(s, backbone.vocabulary, lengths) for s in task.splits}
  if 'train' not in loaded:
    raise UserError(
      f'The task {task.name!r} has no examples to train on; give --data FILE as well.'
    )
  # The public test splits of GLUE and SuperGLUE have no labels: the validation split is the score.
  examples = {s: found for s, found in loaded.items() if s == 'train' or task.judges(found)}
  if prompt is not None and task.labels:
    prompt = with_labels(prompt, task.labels)
  model = PromptedT5(T5(backbone.config), prompt)
  sizes = ', '.join(f'{len(found)} {name}' for name, found in examples.items())
  console.print(f'Model {backbone.name} · task {task.name}: {sizes} examples', highlight=False)
  for name in loaded.keys() - examples.keys():
    console.print(f'The {name} split has no labels and is not used', highlight=False)
  model_name = whole_path(model_name)
  vocabulary = vocabulary and whole_path(vocabulary)
  return _Setup(
    backbone, model, task, lengths, examples, model_name, vocabulary, console, placement
  )


def with_labels(module: Any, labels: Sequence[str]) -> Any:
  """`module` with the task's labels in every ClassLabels initialiser that was given none."""
  changes = {}
  for field in dataclasses.fields(module):
    value = None if field.name == 'parent' else getattr(module, field.name)
    if isinstance(value, ClassLabels) and not value.labels:
      changes[field.name] = dataclasses.replace(value, labels=tuple(labels))
    elif isinstance(value, nn.Module):
      changes[field.name] = with_labels(value, labels)
  return module.clone(**changes)


def _metadata(setup: _Setup, settings: Settings) -> dict[str, Any]:
  """What the prompt file says about itself, besides step, seed and score."""
  method, backbone = setup.model.prompt, setup.backbone
  return {
    'base_model': backbone.name,
    'model': setup.model_name,
    'vocabulary_file': setup.vocabulary,
    'fingerprint': backbone.fingerprint,
    'width': backbone.config.emb_dim,
    'vocabulary': backbone.vocabulary.sha256,
    'method': 'none' if method is None else type(method).__name__,
    'method_config': describe(method),
    'gin': config.used(),
    'length': getattr(method, 'length', 0),
    'patterns': list(settings.patterns),
    'task': setup.task.name,
    'labels': setup.task.labels and list(setup.task.labels),
    'words': setup.task.words,
    'input_length': setup.lengths.inputs,
    'target_length': setup.lengths.targets,
  }


def _check_positions(setup: _Setup, params: dict[str, Any], constants: Any, most: int) -> None:
  """Refuses a prompt whose rows do not fit among the encoder's tokens."""
  tokens = jax.ShapeDtypeStruct((1, setup.lengths.inputs), 'int32')
  variables = variables_of(params, constants)
  injections = jax.eval_shape(
    lambda v, t: setup.model.apply(v, t, method='injections'), variables, tokens
  )
  rows = prefix_length(injections.encoder)
  if rows + setup.lengths.inputs > most:
    raise UserError(
      f'The prompt has {rows} rows and inputs may have {setup.lengths.inputs} tokens: together '
      f'more than {most} positions. Lower --length or --input_length, or raise the limit with '
      f'--gin.MAX_POSITIONS={rows + setup.lengths.inputs}.'
    )
