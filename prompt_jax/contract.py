"""What a prompt method must be, take and return; a method that breaks it ends in one line."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError

from prompt_jax.errors import UserError
from prompt_jax.injections import PLACEMENTS, READS, Dims, Injection, Injections, Method, Sizes

# A file that does not hold the parameters of its method: whoever reads it says so.
OF_A_FILE = (ScopeParamNotFoundError, ScopeParamShapeError)


@contextlib.contextmanager
def failures_explained(method: Method, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
  """Around a call of a method: whatever fails in it is told with the name of its class.

  Args:
    method: that is called.
    passing: exceptions that the caller explains.

  Raises:
    UserError: the method failed; where that is for a value that it does not declare, this is said.
  """
  try:
    yield
  except UserError:
    raise
  except passing:
    raise
  except (AttributeError, TypeError) as error:
    if 'None' not in str(error):
      raise _failed(method, error) from error
    declared = ', '.join(sorted(method.depends_on)) or 'nothing'
    missing = ', '.join(f'ctx.{name}' for name in READS if name not in method.depends_on)
    raise UserError(
      f'{type(method).__name__} failed on a value that is None: {error}. Its depends_on declares '
      f'{declared}, so that {missing} are None. Name there what the method reads.'
    ) from error
  except Exception as error:  # code of a user, and of Flax that it calls, raises anything
    raise _failed(method, error) from error


def _failed(method: Method, error: Exception) -> UserError:
  what = ' '.join(str(error).split()).split(' (https:')[0]
  trace = error.__traceback__
  while trace is not None and trace.tb_next is not None:
    trace = trace.tb_next
    if trace.tb_frame.f_globals.get('__name__') == type(method).__module__:
      break
  where = f' ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})' if trace else ''
  return UserError(
    f'The prompt method {type(method).__name__} failed{where}: {type(error).__name__}: '
    f'{what.rstrip(".")}. '
    'Expected a module that is called with a Context and returns Injections; see "Your own method" '
    'in the README.'
  )


def check_injections(method: Method, found: Any, sizes: Sizes, batch: int) -> None:
  """Refuses what is not what a method must return.

  Args:
    method: that returned it.
    found: what it returned.
    sizes: of the model.
    batch: B, rows of the batch that it was asked for.

  Raises:
    UserError: says what, and what was expected.
  """
  name = type(method).__name__
  if not isinstance(found, Injections):
    raise UserError(f'{name} returned {_shown(found)}; expected prompt_jax.Injections.')
  for stack in ('encoder', 'decoder', 'cross'):
    part = getattr(found, stack)
    if not isinstance(part, Injection):
      raise UserError(
        f'{name} gives {_shown(part)} for the {stack}; expected prompt_jax.Injection.'
      )
    if part.placement not in PLACEMENTS:
      raise UserError(
        f'The placement of {name} in the {stack} is {part.placement!r}; known: '
        f'{", ".join(PLACEMENTS)}.'
      )
    dims = sizes.stacks.get('decoder' if stack == 'cross' else stack)
    for field, expected in _expected(dims, batch).items() if dims else ():
      value = getattr(part, field)
      if value is not None and not any(_fits(value, shape) for shape in expected):
        raise UserError(
          f'{name} gives {_shown(value)} as the {field} of the {stack}; expected floats of shape '
          f'{" or ".join(map(_written, expected))}.'
        )
  if jnp.shape(found.aux_loss) != ():
    raise UserError(f'The aux_loss of {name} is {_shown(found.aux_loss)}; expected one number.')


def _expected(dims: Dims, batch: int) -> dict[str, list[tuple[Any, ...]]]:
  """Shapes of each field: a number, a choice of numbers, or the name of a free length."""
  rows = (1, batch) if batch > 1 else (1,)
  return {
    'prefix': [(rows, 'rows', dims.H), (rows, 'examples', 'rows', dims.H)],
    'delta': [(rows, 'tokens', dims.H)],
    'kv': [(dims.L, 2, rows, 'rows', dims.kv_heads, dims.D)],
  }


def _fits(value: Any, shape: tuple[Any, ...]) -> bool:
  if not isinstance(value, jax.Array) and not hasattr(value, 'dtype'):
    return False
  if not jnp.issubdtype(value.dtype, jnp.floating) or len(value.shape) != len(shape):
    return False
  ok = {str: lambda n, _: True, int: lambda n, want: n == want, tuple: lambda n, want: n in want}
  return all(ok[type(want)](n, want) for n, want in zip(value.shape, shape, strict=True))


def _written(shape: tuple[Any, ...]) -> str:
  one = lambda n: ' or '.join(map(str, n)) if isinstance(n, tuple) else str(n)
  return f'[{", ".join(map(one, shape))}]'


def _shown(value: Any) -> str:
  if hasattr(value, 'dtype') and hasattr(value, 'shape'):
    return f'{jnp.dtype(value.dtype).name}{list(value.shape)}'
  return f'a {type(value).__name__}'
