"""The values of gin settings: which a run reads, and of what type they must be.

Python objects are passed on as they are and recorded by a description. What was given and is not
read is refused.
"""

import functools
import inspect
import pathlib
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

from gin import config as gin_config

from prompt_jax.configuration.description import literal
from prompt_jax.configuration.gin_files import modernised
from prompt_jax.configuration.run_files import folder
from prompt_jax.data.example import Task
from prompt_jax.errors import UserError, unknown

NO_SETTINGS = ('record', 'console')  # arguments of runs
MACRO = re.compile(r'^([A-Za-z_]\w*)\s*=', re.MULTILINE)
# `thing.parameter =`, or `thing:` before an indented block of parameters.
BINDING = re.compile(r'^((?:\w+/)*[A-Za-z_][\w.]*)(?:\.\w+\s*=|:\s*$)', re.MULTILINE)


def selector_of(part: Callable[..., Any]) -> str:
  """gin's name of a function or class."""
  return gin_config._inverse_lookup(part).selector


def complete(*entries: Callable[..., Any]) -> str:
  """Every setting that calls of `entries` read, their defaults among them, as gin text.

  The text is what gin calls the operative configuration, without calling anything: it also has what
  is called later or not at all (`@choose`).
  """
  found: dict[tuple[str, str], dict[str, Any]] = {}
  queue: list[tuple[tuple[str, ...], str]] = [((), selector_of(entry)) for entry in entries]
  while queue:
    scopes, selector = queue.pop()
    key = ('/'.join(scopes), selector)
    if key in found:
      continue
    bound = gin_config._get_bindings(selector, list(scopes))
    defaults = gin_config._get_default_configurable_parameter_values(
      _signature(selector), None, None
    )
    found[key] = {n: v for n, v in {**defaults, **bound}.items() if n not in NO_SETTINGS}
    for reference in gin_config.iterate_references(bound):
      queue.append((tuple(reference.scopes) or scopes, reference.configurable.selector))
  return gin_config._config_str(found)


def _signature(selector: str) -> Callable[..., Any]:
  wrapped = gin_config._REGISTRY[selector].wrapped
  return gin_config._find_class_construction_fn(wrapped) if isinstance(wrapped, type) else wrapped


def reachable(start: str) -> tuple[set[str], set[str]]:
  """The macros and the selectors that the configurable `start` refers to, directly or not."""
  macros: set[str] = set()
  selectors = {start}
  queue = [start]
  while queue:
    for reference in _references(queue.pop()):
      is_macro = reference.configurable.wrapped is gin_config.macro
      name = '/'.join(reference.scopes) if is_macro else reference.configurable.selector
      seen = macros if is_macro else selectors
      if name not in seen:
        seen.add(name)
        queue.append(f'%{name}' if is_macro else name)
  return macros, selectors


def _references(name: str) -> Iterator[gin_config.ConfigurableReference]:
  """References in the bindings of a selector (in any scope), or in the value of a %MACRO."""
  for (scope, selector), bindings in gin_config._CONFIG.items():
    if name.startswith('%'):
      if selector == 'gin.macro' and scope == name[1:]:
        yield from gin_config.iterate_references(bindings)
    elif selector == name:
      yield from gin_config.iterate_references(bindings)


def reads(*parts: Callable[..., Any]) -> set[str]:
  """The macros, and the selectors of gin, that some configurables read, directly or not."""
  found: set[str] = set()
  for part in parts:
    macros, selectors = reachable(selector_of(part))
    found |= macros | selectors
  return found


def is_in(name: str, known: set[str]) -> bool:
  """Whether `reads` found a macro, or the thing of a binding such as "adafactor.decay"."""
  if '.' not in name:
    return name in known
  matching = gin_config._REGISTRY.matching_selectors(name.rpartition('.')[0])
  return any(selector in known for selector in matching)


def refuse_unread(
  entry: Callable[..., Any], given: Mapping[str, str], files: Sequence[pathlib.Path]
) -> None:
  """Refuses what was given and can have no effect: nothing that `entry` builds refers to it.

  Args:
    entry: of the run.
    given: name of a macro or binding -> how it was given, for messages.
    files: gin files of the user, or of ours that the user named.

  Raises:
    UserError: something is not read.
  """
  macros, selectors = reachable(selector_of(entry))
  given_macros = {name: where for name, where in given.items() if '.' not in name}
  bound = [(name.rpartition('.')[0], where) for name, where in given.items() if '.' in name]
  for path in files:
    text = modernised(path.read_text(encoding='utf-8'))
    if path.is_relative_to(folder()):
      _refuse_unread_file(path, text, macros)
      continue
    given_macros.update({name: str(path) for name in MACRO.findall(text)})
    bound += [(name, f'{name} in {path}') for name in BINDING.findall(text)]
  for name, where in given_macros.items():
    if name in macros:
      continue
    if where.lstrip('-').isidentifier() and where != name:  # a flag or a keyword, which exists
      raise UserError(f'{where} has no effect: this run does not read {name}. Leave it out.')
    raise unknown(f'macro (from {where})', name, macros)
  for name, where in bound:
    # gin has parsed it, so there is one; the file may import its module under another name.
    partial, matching = name.rpartition('/')[2], gin_config._REGISTRY.matching_selectors
    if selectors.isdisjoint(matching(partial) or matching(partial.rpartition('.')[2])):
      used = sorted(s.rsplit('.', 1)[-1] for s in selectors)
      raise UserError(
        f'{where} has no effect: this run does not use {name!r}. It uses {", ".join(used)}.'
      )


def _refuse_unread_file(path: pathlib.Path, text: str, macros: set[str]) -> None:
  unread = [name for name in MACRO.findall(text) if name not in macros]
  if unread:
    raise UserError(
      f'{path.relative_to(folder())} is not for this run, which does not read {", ".join(unread)}.'
    )


class Given:
  """An object that was given in Python.

  gin copies what it binds, prints it into the record, and knows nothing of objects: a copy of this
  is the object itself, and its text is the description.
  """

  def __init__(self, value: Any):
    self.value, self._text = value, literal(value)

  def __deepcopy__(self, _: dict[int, Any]) -> Any:
    return self.value

  def __repr__(self) -> str:
    return self._text


class Uncalled:
  """A reference that gin does not call, such as `@choose`.

  Made when it is copied: a partial function with its bindings, which needs gin no more.
  """

  def __init__(self, reference: gin_config.ConfigurableReference):
    self._reference = reference

  def __deepcopy__(self, _: dict[int, Any]) -> Any:
    reference = self._reference
    scopes = list(reference.scopes) or gin_config.current_scope()
    with gin_config.config_scope(scopes):
      bound = gin_config.get_bindings(reference.configurable.selector)
    return functools.partial(reference.configurable.wrapped, **bound)

  def __repr__(self) -> str:
    return repr(self._reference)


def as_bound(value: Any) -> Any:
  """What gin is to bind for a value: literals as they are, objects as `Given`."""
  return value if gin_config._is_literally_representable(value) else Given(value)


def without_gin(value: Any) -> Any:
  """A bound value in which references that are not called are `Uncalled`."""
  if isinstance(value, gin_config.ConfigurableReference):
    return value if value.evaluate else Uncalled(value)
  if type(value) in (list, tuple):
    return type(value)(without_gin(v) for v in value)
  if type(value) is dict:
    return {k: without_gin(v) for k, v in value.items()}
  return value


NAMES = {
  int: 'a whole number',
  float: 'a number',
  str: 'a text in quotes',
  bool: 'True or False',
  types.NoneType: 'None',
  Task: 'a Task',
}
PLURALS = {int: 'whole numbers', float: 'numbers', str: 'texts', str | Task: 'texts or Tasks'}


def check(selectors: Iterable[str]) -> None:
  """Checks all bindings of some configurables.

  Args:
    selectors: of gin, such as "prompt_jax.runs.train.train".

  Raises:
    UserError: a value of another type, with its macro or else its parameter; or a macro without
      a value.
  """
  chosen = set(selectors)
  for (_, selector), bindings in gin_config._CONFIG.items():
    if selector not in chosen:
      continue
    declared = inspect.signature(gin_config._REGISTRY[selector].wrapped).parameters
    for parameter, bound in bindings.items():
      name, value = _last(f'{selector.rsplit(".", 1)[-1]}.{parameter}', bound)
      value = value.value if isinstance(value, Given) else value
      kinds = _kinds(declared[parameter].annotation) if parameter in declared else ()
      names = [_name(kind) for kind in kinds]
      if names and all(names) and not _fits(value, kinds):
        raise UserError(f'{name} is {value!r}; expected {" or ".join(map(str, names))}.')


def _last(name: str, value: Any) -> tuple[str, Any]:
  """Through macros to a value: its last name, and the value or a reference to something else."""
  while _is_macro(value):
    name = '/'.join(value.scopes)
    if (name, 'gin.macro') not in gin_config._CONFIG:
      raise UserError(f'%{name} is read, but no {name} is set.')
    value = gin_config._CONFIG[name, 'gin.macro']['value']
  return name, value


def _is_macro(value: Any) -> bool:
  reference = isinstance(value, gin_config.ConfigurableReference)
  return reference and value.configurable.wrapped is gin_config.macro


def _kinds(annotation: Any) -> tuple[Any, ...]:
  """(int, NoneType) of `int | None`."""
  return get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)


def _name(kind: Any) -> str | None:
  """What to call a kind of value; None for one that is not looked at."""
  if get_origin(kind) is Mapping:
    return "a mapping such as {'a': 1}"
  if get_origin(kind) in (Sequence, tuple):
    of = PLURALS.get(get_args(kind)[0])
    return of and f'a list of {of}'
  return NAMES.get(kind)


def _fits(value: Any, kinds: Sequence[Any]) -> bool:
  if isinstance(value, gin_config.ConfigurableReference):
    return True  # what it makes is not known yet
  return any(_is(value, kind) for kind in kinds)


def _is(value: Any, kind: Any) -> bool:
  if get_origin(kind) is Mapping:
    return isinstance(value, Mapping)
  if get_origin(kind) in (Sequence, tuple):
    of = _kinds(get_args(kind)[0])
    return isinstance(value, list | tuple) and all(_fits(v, of) for v in value)
  if isinstance(value, bool):
    return kind is bool
  return isinstance(value, kind) or (isinstance(value, int) and kind is float)
