"""The settings of a population: one cell for each combination of what varies."""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from prompt_jax.configuration import config
from prompt_jax.errors import UserError, unknown

# What a cell may name besides macros and bindings of gin: a file of gin/inits.
INIT = 'init'
SHORT = {'LEARNING_RATE': 'learning_rate', 'PROMPT_LENGTH': 'length'}


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


def check_names(
  grid: Mapping[str, Any], own: Sequence[Callable], shared: Sequence[Callable]
) -> None:
  """Refuses what no prompt can have of its own.

  Args:
    grid: by names of macros, of bindings, or INIT.
    own: configurables that are built for every prompt.
    shared: configurables that are built once for all.

  Raises:
    UserError: nothing of a prompt reads a name, or all prompts share it.
  """
  free, common = config.reads(*own), config.reads(*shared)
  for name in grid.keys() - {INIT}:
    if config.is_in(name, free) and not config.is_in(name, common):
      continue
    if config.is_in(name, common):
      raise UserError(
        f'{name} cannot vary in a population: its prompts share one loop. Give one value, and run '
        'the others apart.'
      )
    raise unknown(
      'setting of a prompt (in GRID)', name, {n for n in free - common if '.' not in n} | {INIT}
    )


def applied(cell: Mapping[str, Any]) -> contextlib.AbstractContextManager[None]:
  """A context in which gin builds the parts of a cell."""
  includes = [('inits', cell[INIT])] if INIT in cell else []
  return config.changed({n: v for n, v in cell.items() if n != INIT}, includes)


def title(cell: Mapping[str, Any]) -> str:
  """ "learning_rate 0.3, length 20" """
  return ', '.join(f'{name} {_text(value)}' for name, value in _named(cell))


def folder(cell: Mapping[str, Any], seed: int | None) -> str:
  """ "learning_rate_0.3-length_20-seed_0", which is a name for a file system everywhere."""
  seeds = [] if seed is None else [('seed', seed)]
  parts = [f'{name}_{_text(value)}' for name, value in (*_named(cell), *seeds)]
  return '-'.join(re.sub(r'[^\w.+]+', '_', part) for part in parts)


def _named(cell: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
  return ((SHORT.get(name, name), value) for name, value in cell.items())


def _text(value: Any) -> str:
  return value if isinstance(value, str) else repr(value)
