"""The configuration of a run: found, parsed, checked, and handed over as values.

Settings are read in this order, later ones winning: the verb's own gin/runs/VERB.gin, the prompt
method that the model recommends (if the user names none), the user's gin files, the files of
gin/prompts and others that were chosen by name, the settings given as values (of flags, of
keywords), and those given as gin text. gin accepts in silence a misspelt macro and a binding of
something that the run never builds; both are refused here.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from flax.errors import FlaxError
from gin import config as gin_config

from prompt_jax.checkpoints.backbone import EMBEDDED, advised_tuning
from prompt_jax.configuration import gin_files, values
from prompt_jax.configuration.gin_files import isolated, modern_name
from prompt_jax.configuration.run_files import CHOSEN, Request, settings_of
from prompt_jax.configuration.values import Given, as_bound, without_gin
from prompt_jax.errors import UserError
from prompt_jax.runs.record import Record

GIN_ADDS = '\n  In call to configurable'
# Short for patterns of TRAINABLE, and the settings that have no use without a prompt.
ALL, PROMPT = 'all', 'prompt'
OF_A_PROMPT = {'PROMPT': 'prompt', 'PROMPT_INIT': 'init', 'PROMPT_LENGTH': 'length'}
# The folder in gin/ of a setting whose value may be the name of a file there.
FILES_OF = {chosen.macro: chosen.folder for chosen in CHOSEN.values()}
# What a model may recommend besides the method: settings of its file in gin/prompts.
ADVISED = {'length': 'PROMPT_LENGTH', 'learning_rate': 'PROMPT_LEARNING_RATE'}


@dataclasses.dataclass(frozen=True)
class Configured:
  """A run as values.

  Attributes:
    arguments: of the entry function.
    record: all settings as text.
  """

  arguments: dict[str, Any]
  record: Record


@dataclasses.dataclass(frozen=True)
class Advice:
  """What a model recommends.

  Attributes:
    model: its name.
    method: of gin/prompts; "" without a recommendation.
    settings: macros of the method.
    taken: whether it is the default of this run, as the user says nothing of a method.
    used: whether the run uses the method, or no prompt.
  """

  model: str = ''
  method: str = ''
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  taken: bool = False
  used: bool = True


def load(verb: str, entry: Callable[..., Any], request: Request) -> Configured:
  """Reads everything the user gave and builds the arguments of `entry`.

  gin is as before when this returns, and may be called from several threads.

  Args:
    verb: whose gin/runs/VERB.gin is read.
    entry: the function that it binds.
    request: of the user.

  Raises:
    UserError: an unknown file, macro or binding, a value that gin cannot read, or one of another
      type than a parameter's; or something that cannot be made of the values.
  """
  with parsed(verb, entry, request) as advice:
    settings = record(entry, request.command, advice)
    return Configured(built(entry), settings)


@contextlib.contextmanager
def parsed(verb: str, entry: Callable[..., Any], request: Request) -> Iterator[Advice]:
  """gin's state with everything the user gave, for as long as it is entered; args as `load`.

  Yields what the model recommends.
  """
  request = _written_out(verb, request)
  advice = _advice(verb, request)
  with isolated():
    gin_files.search(request.search)
    gin_files.read(f'runs/{verb}.gin', request.search)
    if advice.taken:
      gin_files.include([('prompts', advice.method)], request.search)
      for macro, value in advice.settings.items():
        gin_files.bind(macro, value, f'"tuning" of {advice.model}')
    given, files = _parse_given(request)
    values.refuse_unread(entry, given, files)
    values.check(values.reachable(values.selector_of(entry))[1])
    gin_config.finalize()
    yield advice


def _written_out(verb: str, request: Request) -> Request:
  """The request with a single value of several alone where no list is expected, and TRAINABLE as
  patterns, "all" as the file of gin/runs that stands for it."""
  known = {setting.macro: setting for setting in settings_of(verb).values()}
  settings = {n: known[n].value(v) if n in known else v for n, v in request.settings.items()}
  trainable = settings.get('TRAINABLE')
  if trainable is None:
    return dataclasses.replace(request, settings=settings)
  patterns = [trainable] if isinstance(trainable, str) else list(trainable)
  if patterns != [ALL]:
    settings['TRAINABLE'] = ['prompt/.*' if p == PROMPT else p for p in patterns]
    return dataclasses.replace(request, settings=settings)
  del settings['TRAINABLE']
  for name, parameter in OF_A_PROMPT.items():
    if name in settings:
      raise UserError(
        f'{parameter} is a setting of a prompt, and "all" tunes the model without one. Leave out '
        'one of the two.',
        parameters=[parameter, 'train'],
      )
  includes = [('runs', 'model_tuning'), *request.includes]
  return dataclasses.replace(request, settings=settings, includes=includes)


def _parse_given(request: Request) -> tuple[dict[str, str], list[pathlib.Path]]:
  """Parses all that the user gave: (name of a macro or binding -> how it was given, gin files)."""
  files = [gin_files.read(name, request.search) for name in request.files]
  gin_files.include(request.includes, request.search)
  named = {n: v for n, v in request.settings.items() if n in FILES_OF and isinstance(v, str)}
  gin_files.include([(FILES_OF[n], named[n]) for n in FILES_OF if n in named], request.search)
  plain = {n: v for n, v in request.settings.items() if n not in named}
  given = {name: request.origins.get(name, name) for name in plain}
  for name, value in plain.items():
    gin_files.bind(name, as_bound(value), given[name])
  for old_name, value in request.bindings:
    name = modern_name(old_name)
    where = f'--gin.{name}={value}'
    gin_files.parse(name, value, where)
    given[name] = where if '.' in name else f'--gin.{name}'
  return given, files


def _advice(verb: str, request: Request) -> Advice:
  """What the model recommends, which is taken where the user names no method."""
  with isolated():
    gin_files.search(request.search)
    gin_files.read(f'runs/{verb}.gin', request.search)
    if gin_config._CONFIG.pop(('PROMPT', 'gin.macro'), None) is None:
      return Advice()
    _parse_given(request)
    model, architecture = _macro('MODEL'), _macro('ARCHITECTURE')
    taken, chosen = ('PROMPT', 'gin.macro') not in gin_config._CONFIG, _macro('PROMPT')
  if model is None and architecture is None:
    model = EMBEDDED
  found = advised_tuning(model) if isinstance(model, str) else {}
  if not found:
    return Advice()
  settings = {macro: found[name] for name, macro in ADVISED.items() if name in found}
  with isolated():
    gin_files.read(f'prompts/{found["prompt"]}.gin', request.search)
    same = _class_of(chosen) is _class_of(_macro('PROMPT'))
  # A run without a prompt has no use for the advice.
  used = taken or chosen is None or same
  return Advice(model, found['prompt'], settings, taken=taken, used=used)


def _macro(name: str) -> Any:
  """The value of a macro; None where it has none."""
  return gin_config._CONFIG.get((name, 'gin.macro'), {}).get('value')


def _class_of(prompt: Any) -> Any:
  """The class of a prompt method that is bound, in gin or as an object."""
  if isinstance(prompt, gin_config.ConfigurableReference):
    return prompt.configurable.wrapped
  return type(prompt.value) if isinstance(prompt, Given) else None


def built(entry: Callable[..., Any]) -> dict[str, Any]:
  """The arguments that are bound to `entry`, made.

  Raises:
    UserError: one of them cannot be made.
  """
  try:
    with _restored():
      # A function that is bound and not called (`@choose`) would look up its bindings in gin when
      # the run calls it, long after these settings are gone: it takes them along instead.
      for bindings in gin_config._CONFIG.values():
        bindings.update({name: without_gin(value) for name, value in bindings.items()})
      return gin_config.get_bindings(entry)
  except UserError as e:
    # gin adds which of its configurables was called.
    raise UserError(str(e).split(GIN_ADDS)[0], e.parameters) from e
  except (TypeError, ValueError, AttributeError, FlaxError) as e:
    what, _, called = str(e).partition(GIN_ADDS)
    name = called.strip().split(' ')[0].strip("'") or 'what the settings name'
    line = ' '.join(what.split()).split(' (https:')[0]
    raise UserError(f'{name} cannot be made of its settings: {line}') from e


def record(entry: Callable[..., Any], command: str, advice: Advice | None = None) -> Record:
  """Every setting that a call of `entry` reads, and what the model recommends."""
  text, advice = values.complete(entry), advice or Advice()
  said = f'Prompt method {advice.method}, which the model {advice.model} recommends'
  notes = (said,) if advice.taken else ()
  return Record(text, command, notes, '' if advice.used else advice.method)


@contextlib.contextmanager
def changed(
  settings: Mapping[str, Any], includes: Sequence[tuple[str, str]] = ()
) -> Iterator[None]:
  """Other values for some settings, for as long as it is entered.

  Args:
    settings: values by the name of a macro ("LEARNING_RATE") or binding ("adafactor.decay").
    includes: (subfolder, name) of gin files that are read first.

  Raises:
    UserError: gin knows no such file or binding.
  """
  with _restored():
    with gin_config.unlock_config():
      gin_files.include(includes, gin_config._LOCATION_PREFIXES[1:])
      for name, value in settings.items():
        gin_files.bind(name, as_bound(value), name)
    yield


@contextlib.contextmanager
def _restored() -> Iterator[None]:
  """The bindings are as before at the end."""
  before = {key: dict(bindings) for key, bindings in gin_config._CONFIG.items()}
  try:
    yield
  finally:
    gin_config._CONFIG.clear()
    gin_config._CONFIG.update(before)
