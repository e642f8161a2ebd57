"""Whether what gin binds is of the plain type that a parameter declares.

gin binds whatever it reads: without this, BATCH_SIZE = 'abc' is a TypeError somewhere in the run.
Only parameters declared as a number, a text, a truth value or None are looked at.
"""

import inspect
import types
from collections.abc import Iterable
from typing import Any, get_args

from gin import config as gin_config

from prompt_jax.errors import UserError

NAMES = {
  int: 'a whole number',
  float: 'a number',
  str: 'a text in quotes',
  bool: 'True or False',
  types.NoneType: 'None',
}


def check(selectors: Iterable[str]) -> None:
  """Checks all bindings of some configurables.

  Args:
    selectors: of gin, such as "prompt_jax.cli.train.train".

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
      plain = _plain(declared[parameter].annotation) if parameter in declared else ()
      if plain and not _fits(value, plain):
        expected = ' or '.join(NAMES[kind] for kind in plain)
        raise UserError(f'{name} is {value!r}; expected {expected}.')


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


def _plain(annotation: Any) -> tuple[type, ...]:
  """(int, NoneType) of `int | None`; () where any other type is possible."""
  kinds = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
  return kinds if all(kind in NAMES for kind in kinds) else ()


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
  if isinstance(value, gin_config.ConfigurableReference):
    return True  # what it makes is not known yet
  if isinstance(value, bool):
    return bool in kinds
  return isinstance(value, kinds) or (isinstance(value, int) and float in kinds)
