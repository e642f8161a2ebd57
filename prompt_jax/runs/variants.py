"""The variants of a population: what every combination of a grid trains, and what it is called."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import optax

from prompt_jax.data.example import Task
from prompt_jax.errors import UserError

# What a setting may name besides macros and bindings of gin: a file of gin/inits.
INIT = 'init'
SHORT = {'LEARNING_RATE': 'learning_rate', 'PROMPT_LENGTH': 'length'}


@dataclasses.dataclass(frozen=True)
class Variant:
  """What one combination trains, with each seed.

  Attributes:
    setting: name -> value, of what varies.
    prompt: the method.
    optimizer: of its parameters.
    task: what it learns; the same object where several variants share it.
    warm_start: a prompt file to begin with.
    settings_text: all settings of the prompt as gin text, for its file.
  """

  setting: Mapping[str, Any]
  prompt: nn.Module
  optimizer: optax.GradientTransformation
  task: Task
  warm_start: str | None = None
  settings_text: str = ''


def combinations(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
  """Every combination, the last name varying fastest; [{}] of an empty grid.

  Args:
    grid: name -> its values.

  Raises:
    UserError: a name without values, or values that look the same.
  """
  for name, values in grid.items():
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
      raise UserError(f'The values of {name} are {values!r}; expected a list such as [0.3, 1.0].')
    texts = [_text(value) for value in values]
    if len(set(texts)) < len(texts):
      raise UserError(f'The values of {name} repeat: {", ".join(texts)}. Each is one setting.')
  return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def title(setting: Mapping[str, Any]) -> str:
  """ "learning_rate 0.3, length 20" """
  return ', '.join(f'{name} {_text(value)}' for name, value in _named(setting))


def folder(setting: Mapping[str, Any], seed: int | None) -> str:
  """ "learning_rate_0.3-length_20-seed_0", a valid file name on every system."""
  seeds = [] if seed is None else [('seed', seed)]
  parts = [f'{name}_{_text(value)}' for name, value in (*_named(setting), *seeds)]
  return '-'.join(re.sub(r'[^\w.+]+', '_', part) for part in parts)


def _named(setting: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
  return ((SHORT.get(name, name), value) for name, value in setting.items())


def _text(value: Any) -> str:
  return value if isinstance(value, str) else repr(value)
