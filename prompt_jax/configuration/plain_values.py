"""Whether what gin binds is of the plain type that a parameter declares.

gin binds any value: without this, BATCH_SIZE = 'abc' is a TypeError somewhere in the run. Only
parameters declared as a number, a text, a truth value, a task, a list or mapping of these, or None
are checked.
"""

import inspect
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args, get_origin

from gin import config as gin_config

from prompt_jax.configuration.python_values import Given
from prompt_jax.data.example import Task
from prompt_jax.errors import UserError

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
