"""What training runs share, of one prompt or many: the set-up, and what is left when one ends."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
from rich.console import Console

from prompt_jax.checkpoints.backbone import Backbone, whole_path
from prompt_jax.checkpoints.prompt_file import build_method, describe_method
from prompt_jax.data import splits
from prompt_jax.data.example import Example, Lengths, Task
from prompt_jax.errors import UserError, unknown
from prompt_jax.evaluation import findings, suite
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.features import Numbers
from prompt_jax.injections import first_tokens, prefix_length
from prompt_jax.loading import BaseModel, prompted
from prompt_jax.models.module import embed_scale
from prompt_jax.models.t5.layers import Int8, wide
from prompt_jax.prompted import Prompted, variables_of
from prompt_jax.prompts.base import check_method
from prompt_jax.prompts.initialise import initialise_prompt, with_labels
from prompt_jax.runs import task_choice
from prompt_jax.runs.results import TrainedPrompt
from prompt_jax.runtime import processes
from prompt_jax.sharding.placement import Placement
from prompt_jax.training import records
from prompt_jax.training.members import Result
from prompt_jax.training.records import plot_curve, read_records
from prompt_jax.training.run_folder import constants_to_begin_with
from prompt_jax.training.settings import Settings

# The examples that evaluations during training take, among the splits.
JUDGES = 'judges'


@dataclasses.dataclass(frozen=True)
class Setup:
  """What every seed of a run shares: the model, its method, and the examples of a task.

  Attributes:
    backbone: the model.
    model: with its prompt method.
    task: what is learned.
    limits: most tokens of an input (None for what the data need) and of a target, as given.
    lengths: the same for this task.
    examples: of each split that is used.
    model_name: see `load_backbone`.
    vocabulary: see `load_backbone`.
    console: where to print.
    placement: the mesh; None for one device.
    cut: share of the training inputs that are cut, 0 to 1.
    features: the values of those that the method reads.
  """

  backbone: Backbone
  model: Prompted
  task: Task
  limits: tuple[int | None, int]
  lengths: Lengths
  examples: dict[str, Sequence[Example]]
  model_name: str
  vocabulary: str | None
  console: Console
  placement: Placement | None = None
  cut: float = 0.0
  features: Numbers = dataclasses.field(default_factory=dict)


def set_up(
  base: BaseModel,
  placement: Placement | None,
  task: Task,
  prompt: nn.Module | None,
  limits: tuple[int | None, int],
  dropout: float,
  console: Console,
) -> Setup:
  """Reads the model and the examples, before anything is computed."""
  backbone = base.load(placement, dropout)
  name, vocabulary = whole_path(base.name), base.vocabulary and whole_path(base.vocabulary)
  bare = prompted(backbone.config)
  lengths = Lengths(limits[0] or splits.LONGEST, limits[1])
  setup = Setup(backbone, bare, task, limits, lengths, {}, name, vocabulary, console, placement)
  return with_method(with_task(setup, task), prompt)


def on_mesh(
  settings: Settings,
  placement: Placement | None,
  base: BaseModel,
  batch_size: int,
  packed: bool = False,
) -> Settings:
  """The settings for a mesh, before the model is read; as they are for one device.

  Raises:
    UserError: the model or the batch does not divide over it; with the nearest mesh that works.
  """
  if placement is None:
    return settings
  # What suits the caches of one device says nothing of a mesh.
  microbatches = settings.microbatches or 1
  # Packed rows are as many as divide: see `train`.
  base.check_divides(placement, None if packed else batch_size // microbatches)
  return dataclasses.replace(settings, microbatches=microbatches)


def with_task(setup: Setup, task: Task) -> Setup:
  """The set-up with the examples of a task.

  Raises:
    UserError: none to train on, or a bad file.
  """
  backbone, console = setup.backbone, setup.console
  given, target_length = setup.limits
  lengths = Lengths(given or splits.LONGEST, target_length)
  loaded = {s: task.load(s, backbone.vocabulary, lengths) for s in task.splits}
  if 'train' not in loaded:
    raise UserError(
      f'The task {task.name!r} has no examples to train on; give training data as well.',
      parameters=['data'],
    )
  # The public test splits of GLUE and SuperGLUE have no labels: the validation split is the score.
  examples = {s: found for s, found in loaded.items() if s == 'train' or task.has_answers(found)}
  sizes = ', '.join(f'{len(found)} {name}' for name, found in examples.items())
  console.print(f'Model {backbone.name} · task {task.name}: {sizes} examples', highlight=False)
  for name in loaded.keys() - examples.keys():
    console.print(f'The {name} split has no labels and is not used', highlight=False)
  if given is None:
    lengths = Lengths(splits.default_length(examples.values()), target_length)
  lines, cut = splits.report(examples, backbone.vocabulary, lengths)
  for line in lines:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
  findings.warn(task, examples, backbone.vocabulary, lengths.targets)
  return dataclasses.replace(setup, task=task, examples=examples, lengths=lengths, cut=cut)


def with_judges(setup: Setup, given: int | None, settings: Settings, batch_size: int) -> Setup:
  """The set-up with `JUDGES`: see `splits.judges`; none without validation examples."""
  validation = setup.examples.get('validation')
  if validation is None:
    return setup
  drawn = splits.judges(
    setup.examples['train'],
    validation,
    setup.task,
    given=given,
    eval_every=settings.eval_every,
    batch_size=batch_size,
    target_length=setup.lengths.targets,
  )
  if len(drawn) < len(validation):
    setup.console.print(
      f'Validation while it trains: {len(drawn):,} of {len(validation):,} examples; all of them '
      'for the last choice',
      highlight=False,
    )
  return dataclasses.replace(setup, examples={**setup.examples, JUDGES: drawn})


def with_method(setup: Setup, prompt: nn.Module | None) -> Setup:
  """The set-up with a prompt method, which learns the labels of the task."""
  if prompt is not None:
    check_method(prompt)
    build_method(describe_method(prompt))  # or the file of what is trained could not be used
  prompt, features = task_choice.for_features(prompt, setup.task, setup.examples)
  if prompt is not None and setup.task.labels:
    prompt = with_labels(prompt, setup.task.labels)
  model = prompted(setup.backbone.config, prompt)
  return dataclasses.replace(setup, model=model, features=features)


def fresh_prompt(setup: Setup, seed: int, warm_start: str | None) -> tuple[Any, Any]:
  """The parameters of a fresh prompt, and its constants or those of the file it will begin with."""
  embedding = setup.backbone.params['token_embedder']['embedding']
  if setup.placement:
    embedding = setup.placement.to_local(embedding)
  vocabulary = setup.backbone.vocabulary
  key = jax.random.key(seed)
  table = wide(embedding) * embed_scale(setup.backbone.config)  # as the layers read it
  prompt, constants = initialise_prompt(setup.model, key, table, vocabulary)
  return prompt, constants_to_begin_with(constants, warm_start)


def metadata_of(setup: Setup, settings: Settings, settings_text: str) -> dict[str, Any]:
  """What the prompt file says about itself, besides step, seed and score.

  Args:
    setup: of the run.
    settings: of the run.
    settings_text: all of them as gin text.
  """
  method, backbone = setup.model.prompt, setup.backbone
  return {
    'base_model': backbone.name,
    'model': setup.model_name,
    'vocabulary_file': setup.vocabulary,
    'fingerprint': backbone.fingerprint,
    'parameters': parameters_of(backbone.params),
    'width': backbone.config.emb_dim,
    'vocabulary': backbone.vocabulary.sha256,
    'method': 'none' if method is None else type(method).__name__,
    'method_config': describe_method(method),
    'gin': settings_text,
    'length': getattr(method, 'length', 0),
    'patterns': list(settings.patterns),
    'task': setup.task.name,
    'tasks': [part.name for part in setup.task.parts or (setup.task,)],
    'features': {name: list(of) for name, of in setup.features.items()} or None,
    'labels': setup.task.labels and list(setup.task.labels),
    'words': setup.task.words,
    'columns': setup.task.columns,
    'input_length': setup.lengths.inputs,
    'target_length': setup.lengths.targets,
  }


def parameters_of(backbone: Any) -> int:
  """How many weights a model has, however they are stored."""
  leaves = jax.tree.leaves(backbone, is_leaf=lambda leaf: isinstance(leaf, Int8))
  return sum(math.prod(leaf.shape) for leaf in leaves)


def check_positions(setup: Setup, params: dict[str, Any], constants: Any, most: int) -> None:
  """Refuses a prompt whose rows do not fit among the tokens of the input."""
  model, tokens = setup.model, jax.ShapeDtypeStruct((1, setup.lengths.inputs), 'int32')
  call = lambda v, t: model.apply(v, t, first_tokens(model.prompt, t), method='injections')
  injections = jax.eval_shape(call, variables_of(params, constants), tokens)
  rows = prefix_length(getattr(injections, setup.backbone.config.sizes.input_stack))
  if rows + setup.lengths.inputs > most:
    raise UserError(
      f'The prompt has {rows} rows and inputs may have {setup.lengths.inputs} tokens: together '
      f'more than {most} positions. Shorten one of them, or set max_positions to '
      f'{rows + setup.lengths.inputs}.',
      parameters=['length', 'input_length', 'max_positions'],
    )


def evaluator_of(
  setup: Setup, model: Prompted, batch_size: int, at_once: int | None = None
) -> Evaluator | suite.Suite:
  """What measures a model on the task; `at_once` prompts together, see `Evaluator.each`."""
  return suite.evaluator(
    model,
    setup.backbone.vocabulary,
    setup.task,
    max_target_length=setup.lengths.targets,
    batch_size=batch_size,
    features=setup.features if model.prompt else {},
    at_once=at_once,
    placement=setup.placement,
  )


def metric_of(setup: Setup, settings: Settings) -> str | None:
  """The validation score that selects the best step; none without validation examples."""
  if 'validation' not in setup.examples:
    return None
  known = suite.scores_of(setup.task)
  # The scores of a measure of the task's own are known only once they are there.
  if settings.metric and setup.task.score is None and settings.metric not in known:
    what = f'score of {setup.task.name!r} to select by'
    raise unknown(what, settings.metric, known, parameters=['metric'])
  return settings.metric or known[0]


def console_of(console: Console | None) -> Console:
  """Where a run prints: nowhere without a console, and of several processes the first alone."""
  return console if console is not None and processes.is_first() else Console(quiet=True)


def trained_prompt(
  result: Result,
  seed: int,
  name: str = '',
  setting: Mapping[str, Any] | None = None,
  on_validation: Mapping[str, float] | None = None,
) -> TrainedPrompt:
  """What a run returns of one prompt; see `TrainedPrompt`."""
  return TrainedPrompt(
    name=name,
    seed=seed,
    folder=result.folder,
    file=result.file,
    step=result.step,
    best_step=result.selection.step,
    metric=result.metric,
    validation=result.selection.best,
    curve=processes.broadcast(lambda: read_records(result.folder / 'metrics.jsonl')),
    setting=setting or {},
    ended=result.ended.why if result.ended else None,
    on_validation=on_validation or {},
  )


def write_curve(result: Result, on_validation: Mapping[str, float]) -> None:
  """The plot of a run, with the baselines on its validation examples where there are any."""
  if on_validation:
    history = read_records(result.folder / 'metrics.jsonl')
    plot_curve(history, result.folder / 'curve.png', result.metric, on_validation)


def write_events(folder: pathlib.Path) -> None:
  """The records of a run for TensorBoard, where the library `tensorboard` is installed."""
  records.write_events(folder / 'tensorboard', read_records(folder / 'metrics.jsonl'))
