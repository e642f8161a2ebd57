"""Python objects as values of gin settings: passed on as they are, recorded by a description."""

import functools
from typing import Any

from gin import config as gin_config

from prompt_jax.configuration.description import literal


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
