"""prompt_jax in Python: the verbs of the command line as functions, with the same settings.

    import prompt_jax as pj

    run = pj.train(task='trec', folder='data', prompt='prefix', steps=500)
    run.scores, run.curve, run.plot()
    tuned = pj.load(run.file)
    tuned.predict(['better than I feared'])

A keyword of `train`, `population` and `evaluate` is the flag of the same name (`prompt-jax train
--steps 500` is `train(steps=500)`, `--gin_file` is `gin_files`, `--gin.NAME` is `bindings`), with
the same default (gin/runs/train.gin), the same checks and the same record in the output folder, so
that either goes on with what the other began. Beyond flags, keywords take Python objects: a
`PromptMethod`, a `Task`, rows in memory, a loss, an optimizer.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

from rich.console import Console

from prompt_jax import loading
from prompt_jax.configuration import config, other_names, run_files
from prompt_jax.configuration import population as population_settings
from prompt_jax.configuration.config import Configured
from prompt_jax.configuration.description import literal
from prompt_jax.configuration.run_files import Request
from prompt_jax.errors import UserError, unknown
from prompt_jax.loading import Devices
from prompt_jax.runs import evaluate as evaluation
from prompt_jax.runs import population as populations
from prompt_jax.runs import train as training
from prompt_jax.runs.results import Answers, EvaluationResult, PopulationResult, TrainResult
from prompt_jax.serving import tuned_prompts
from prompt_jax.serving.tuned_prompts import TunedPrompts
from prompt_jax.tuned_model import TunedModel

# The functions with settings, by the names of their verbs.
VERBS = ('train', 'population', 'eval')
# Keywords whose value is a Python object: macro, and what it is.
OBJECTS = {
  'loss': ('LOSS', 'what is minimized, a `losses.Loss` or an `Objective`; default: cross-entropy'),
  'optimizer': ('OPTIMIZER', 'an `optax.GradientTransformation`; default: Adafactor'),
  'schedule': ('SCHEDULE', 'learning rate, a function of the step; default: it falls to 0'),
}
METHOD = ('prompt', 'init')  # keywords whose value may also be the name of a file in gin/
LONGEST = 200  # characters of a value in the recorded call


def train(
  *,
  quiet: bool = False,
  gin_files: Sequence[str] = (),
  bindings: Mapping[str, Any] | None = None,
  **settings: Any,
) -> TrainResult:
  """Tunes a prompt on a frozen model; called again with the same settings it resumes.

  Args:
    quiet: print nothing.
    gin_files: configuration files, as --gin_file.
    bindings: values of gin's macros and bindings by name, such as {'adafactor.decay': 0.7}.
    **settings: as the flags of `prompt-jax train` (task, data, model, prompt, steps, output, ...);
      `help_of('train')` lists them with their defaults. Python objects: `task` also takes a `Task`;
      `data`, `validation` and `test` also rows in memory (see `data.in_memory.memory_table`);
      `prompt` also a `PromptMethod`; `init` an initializer; `loss` a `losses.Loss` or an
      `Objective`; `optimizer` an `optax.GradientTransformation`; `schedule` a function of the step.

  Returns:
    Scores in percent, the training history, and the files.

  Raises:
    UserError: an unknown setting, a bad value or file, or an output folder that holds a run with
      other settings.
  """
  request = _request('train', settings, gin_files, bindings)
  return _call(training.train, config.load('train', training.train, request), quiet)


def population(
  *,
  quiet: bool = False,
  gin_files: Sequence[str] = (),
  bindings: Mapping[str, Any] | None = None,
  **settings: Any,
) -> PopulationResult:
  """Tunes many prompts at once on one frozen model: seeds, learning rates, lengths, initializers.

  Args:
    quiet: see `train`.
    gin_files: see `train`.
    bindings: see `train`.
    **settings: as the flags of `prompt-jax population`; `help_of('population')` lists them.

  Raises:
    UserError: see `train`.
  """
  request = _request('population', settings, gin_files, bindings)
  return _call(populations.population, population_settings.load(request), quiet)


def evaluate(
  prompt_file: str | Sequence[str] | None = None,
  *,
  quiet: bool = False,
  gin_files: Sequence[str] = (),
  bindings: Mapping[str, Any] | None = None,
  **settings: Any,
) -> EvaluationResult:
  """The scores of a prompt, of several, or of the model alone, on a task's test split.

  Args:
    prompt_file: one file or several of the same model; None for the model without a prompt.
    quiet: see `train`.
    gin_files: see `train`.
    bindings: see `train`.
    **settings: as the flags of `prompt-jax eval`; `help_of('eval')` lists them.

  Raises:
    UserError: see `runs.evaluate.evaluate`.
  """
  files = (
    prompt_file
    if prompt_file is None or isinstance(prompt_file, list | tuple)
    else [str(prompt_file)]
  )
  if files is not None:
    settings['prompt_file'] = [str(file) for file in files]
  request = _request('eval', settings, gin_files, bindings)
  return _call(evaluation.evaluate, config.load('eval', evaluation.evaluate, request), quiet)


@overload
def load(
  prompt_file: str | os.PathLike[str] | None = None,
  *,
  model: str | None = None,
  vocabulary: str | None = None,
  dtype: str | None = None,
  weights: str | None = None,
  device: str = 'auto',
) -> TunedModel: ...


@overload
def load(
  prompt_file: list[Any] | tuple[Any, ...],
  *,
  model: str | None = None,
  vocabulary: str | None = None,
  dtype: str | None = None,
  weights: str | None = None,
  device: str = 'auto',
) -> TunedPrompts: ...


def load(
  prompt_file: Any = None,
  *,
  model: str | None = None,
  vocabulary: str | None = None,
  dtype: str | None = None,
  weights: str | None = None,
  device: str = 'auto',
) -> Any:
  """A frozen model with a prompt, ready to answer: a `TunedModel`; with many, `TunedPrompts`.

  Args:
    prompt_file: path of a prompt file, or of tuned weights; None for the model alone. A list of
      prompt files: the prompts have the names of the files, and each text says which one it is for.
    model: see `checkpoints.backbone.load_backbone`; None for the one that the file names, else
      "embedded".
    vocabulary: a SentencePiece model, or "bytes"; None for the model's own.
    dtype: of the weights and of the arithmetic; None for what suits the device.
    weights: "int8" to hold the matrices in a quarter of the memory.
    device: "cpu", "gpu", "tpu", or "auto" for the best one present.

  Raises:
    UserError: a file is missing or damaged, or the prompt belongs to another model.
  """
  placement = Devices(device, 'auto', None, 'data', None).start()
  base = loading.BaseModel(model, vocabulary, dtype, weights)
  if isinstance(prompt_file, list | tuple):
    if placement is not None:
      raise UserError(
        'Several prompts at once are answered on one device of one process. Give one prompt, or '
        'start one process.',
        ['prompt_file'],
      )
    return tuned_prompts.load(base, [str(file) for file in prompt_file])
  files = [] if prompt_file is None else [str(prompt_file)]
  return TunedModel(loading.load_all(base, files, placement)[0], placement)


def predict(texts: Sequence[str], prompt_file: Any = None, **options: Any) -> Answers:
  """The answers to some texts, of a prompt that is loaded for them alone.

  Args:
    texts: what the model reads.
    prompt_file: see `load`.
    **options: those of `load` and of `TunedModel.predict`.

  Raises:
    UserError: see `load` and `TunedModel.predict`.
  """
  of_load = {k: options.pop(k) for k in _LOAD if k in options}
  return load(prompt_file, **of_load).predict(texts, **options)


_LOAD = ('model', 'vocabulary', 'dtype', 'weights', 'device')


def help_of(verb: str) -> str:
  """The settings of a function, one a line: name, default and meaning.

  Args:
    verb: "train", "population", or "eval" ("evaluate" is the same).

  Raises:
    UserError: another verb.
  """
  if verb == 'evaluate':
    verb = 'eval'
  if verb not in VERBS:
    raise unknown('verb', verb, VERBS, 'Others tell their arguments by help(prompt_jax.NAME).')
  found = {s.macro: s for s in run_files.settings_of(verb).values()}
  lines: list[str] = []
  section = None
  for setting in found.values():
    if setting.section != section:
      section = setting.section
      lines.append(f'\n{section}:' if lines else f'{section}:')
    lines.append(f'  {setting.name} = {setting.default!r}: {setting.help}')
  if _has_objects(verb):
    lines.append('\nPython objects, or names of files in gin/:')
    for name in METHOD:
      _, folder, _, what = run_files.CHOSEN[name]
      lines.append(f'  {name}: {what}; gin/{folder} has {", ".join(run_files.names(folder))}')
    lines.append('\nPython objects:')
    lines += [f'  {name}: {what}' for name, (_, what) in OBJECTS.items()]
  return '\n'.join(lines)


def _request(
  verb: str,
  settings: Mapping[str, Any],
  gin_files: Sequence[str],
  bindings: Mapping[str, Any] | None,
) -> Request:
  """The keywords of a call as settings of gin."""
  known = run_files.settings_of(verb)
  objects: dict[str, str] = {}
  if _has_objects(verb):
    objects = {name: run_files.CHOSEN[name].macro for name in METHOD}
    objects |= {name: macro for name, (macro, _) in OBJECTS.items()}
  macros: dict[str, Any] = {}
  for name, value in settings.items():
    if name in known:
      macros[known[name].macro] = value
    elif name in objects:
      macros[objects[name]] = value
    else:
      raise _unknown_setting(verb, name, [*known, *objects])
  return Request(
    settings=macros,
    bindings=[(name, repr(value)) for name, value in (bindings or {}).items()],
    files=list(gin_files),
    origins={known[n].macro if n in known else objects[n]: n for n in settings},
    command=_written(verb, settings),
  )


def _has_objects(verb: str) -> bool:
  return verb in ('train', 'population')


def _unknown_setting(verb: str, name: str, known: Sequence[str]) -> UserError:
  hint = other_names.hint(name, known)
  if hint:
    return UserError(f'{verb} has no setting {name!r}.{hint} help_of({verb!r}) lists all.')
  return unknown(f'setting of {verb}', name, known)


def _written(verb: str, settings: Mapping[str, Any]) -> str:
  """The call as it is recorded; long values are cut."""
  texts = {name: literal(value) for name, value in settings.items()}
  short = {n: t if len(t) <= LONGEST else f'{t[:LONGEST]}...' for n, t in texts.items()}
  return f'prompt_jax.{verb}({", ".join(f"{n}={t}" for n, t in short.items())})'


def _call(run: Callable[..., Any], configured: Configured, quiet: bool) -> Any:
  console = None if quiet else Console()
  return run(**configured.arguments, record=configured.record, console=console)
