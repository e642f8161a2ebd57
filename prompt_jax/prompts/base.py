"""What a prompt method must be, take and return, and the evaluation of one that reads no input.

A method that breaks its protocol ends in one line that says how.
"""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError

from prompt_jax.errors import UserError
from prompt_jax.injections import (
  PLACEMENTS,
  POINTS,
  READS,
  SEEN_BY,
  TASK,
  Context,
  Dims,
  Head,
  Injection,
  Injections,
  InsideEdit,
  Method,
  Sizes,
  Term,
  context_for,
  features_of,
)

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
    missing = ', '.join(f'ctx.{name}' for name in (*READS, TASK) if name not in method.depends_on)
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
    _check_part(name, stack, getattr(found, stack), sizes, batch)
  if jnp.shape(found.aux_loss) != ():
    raise UserError(f'The aux_loss of {name} is {_shown(found.aux_loss)}; expected one number.')
  for term in found.terms:
    if not isinstance(term, Term):
      raise UserError(f'{name} gives {_shown(term)} as a loss term; expected prompt_jax.Term.')
    for other in term.passes.values():
      check_injections(method, other, sizes, batch)


def _check_part(name: str, stack: str, part: Any, sizes: Sizes, batch: int) -> None:
  if not isinstance(part, Injection):
    raise UserError(f'{name} gives {_shown(part)} for the {stack}; expected prompt_jax.Injection.')
  if part.placement not in PLACEMENTS:
    raise UserError(
      f'The placement of {name} in the {stack} is {part.placement!r}; known: '
      f'{", ".join(PLACEMENTS)}.'
    )
  known = SEEN_BY if stack == 'encoder' else SEEN_BY[:1]
  if part.seen_by not in known or (part.seen_by == 'none' and not part.sees_input):
    raise UserError(
      f'The rows of {name} in the {stack} have seen_by={part.seen_by!r} and '
      f'sees_input={part.sees_input}; known there: {", ".join(known)} (in an encoder: '
      f'{", ".join(SEEN_BY)}), and a row must see something.'
    )
  dims = sizes.stacks.get('decoder' if stack == 'cross' else stack)
  absent = dims is None or (stack == 'cross' and len(sizes.stacks) == 1)
  if absent and jax.tree.leaves(part):
    raise UserError(
      f'{name} adds to the {stack}, which this model has not; it has: '
      f'{", ".join(sorted(sizes.stacks))}. Place what reads the input in ctx.input_stack.'
    )
  for field, expected in _expected(dims, batch).items() if dims else ():
    value = getattr(part, field)
    if value is not None and not any(_fits(value, shape) for shape in expected):
      raise UserError(
        f'{name} gives {_shown(value)} as the {field} of the {stack}; expected floats of shape '
        f'{" or ".join(map(_written, expected))}.'
      )
  layers = dims.L if dims and stack == sizes.input_stack else 1
  if not 0 <= part.first_layer < layers:
    raise UserError(
      f'{name} gives {part.first_layer} as the first_layer of the {stack}; expected 0 to '
      f'{layers - 1}.'
    )
  if part.head is not None and (stack != 'decoder' or not isinstance(part.head, Head)):
    raise UserError(
      f'{name} gives {_shown(part.head)} as the head of the {stack}; expected prompt_jax.Head, '
      'of the decoder.'
    )
  for edit in part.inside if dims else ():
    _check_inside(name, stack, edit, dims)


def _check_inside(name: str, stack: str, edit: Any, dims: Dims) -> None:
  known = POINTS[:5] if stack == 'cross' else POINTS
  if not isinstance(edit, InsideEdit) or edit.point not in known:
    what = repr(edit.point) if isinstance(edit, InsideEdit) else _shown(edit)
    raise UserError(
      f'{name} edits the layers of the {stack} at {what}; expected an InsideEdit at one of '
      f'{", ".join(known)}.'
    )
  for leaf in jax.tree.leaves(edit.theta):
    if jnp.shape(leaf)[:1] != (dims.L,):
      raise UserError(
        f'{name} gives {_shown(leaf)} in an edit at {edit.point!r} of the {stack}; expected '
        f'[{dims.L}, ...], a part for each layer.'
      )


def _expected(dims: Dims, batch: int) -> dict[str, list[tuple[Any, ...]]]:
  """Shapes of each field: a number, a choice of numbers, or the name of a free length."""
  rows = (1, batch) if batch != 1 else (1,)
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


Array = jax.Array
Tree = dict[str, Any]


class PromptMethod(nn.Module):
  """A prompt method: `method(ctx) -> Injections`, reading nothing but `ctx`.

  The collection `params` trains; `constants` holds state that does not. Submodules and parameters
  have explicit names, because those end in saved files. Random numbers come from
  `self.make_rng('prompt')`, which is there while `ctx.train` is true.

  Attributes:
    depends_on: what the method reads: of the input, those of `injections.READS`, all others being
      None in its context; any other name is a feature of an example: "task_id", or a column of the
      data. Empty if it injects the same for every input: such a prompt can be turned into plain
      arrays, and one that reads "task_id" alone into plain arrays for each task.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset()

  def __call__(self, ctx: Context) -> Injections:
    raise NotImplementedError(f'{type(self).__name__} does not say what it injects')

  def for_features(self, counts: Mapping[str, int]) -> Self:
    """The method for data in which each feature that it reads has so many values."""
    del counts
    return self

  def rows_parameter(self) -> tuple[str, ...] | None:
    """Path of the parameter [P, H] that is itself the encoder's prompt rows, as in prompt tuning.

    T5X and google-research/prompt-tuning have a name for such a parameter. None, as for most
    methods, where the rows are computed from several parameters, or there are none.
    """
    return None


def check_method(method: Any) -> None:
  """Refuses what is no prompt method, before anything is computed.

  Raises:
    UserError: says what it is, and what was expected.
  """
  if isinstance(method, type):
    raise UserError(f'{method.__name__} is a class; give a method of it, {method.__name__}().')
  if not isinstance(method, PromptMethod):
    raise UserError(f'The prompt is {method!r}; expected a prompt_jax.PromptMethod.', ['prompt'])
  reads = method.depends_on
  if not isinstance(reads, frozenset | set) or not all(isinstance(name, str) for name in reads):
    raise UserError(
      f'{type(method).__name__}.depends_on is {reads!r}; expected a frozenset of names, such as '
      "frozenset({'embeds'})."
    )


def own_table(method: nn.Module, table: nn.Module, name: str) -> Callable[[Sequence[int]], Array]:
  """A copy of `table` with its own parameters, at `name` in the tree of `method`.

  A module called in two places shares its parameters; a method that fills several places needs
  one table for each.

  Raises:
    UserError: the table is no module, or (when called) returns another shape than it is asked for.
  """
  if not isinstance(table, nn.Module):
    raise UserError(
      f'The table of {type(method).__name__} is {table!r}; expected a module that is called with a '
      'shape, such as tables.Plain().'
    )
  rows = table.copy(parent=method, name=name)

  def checked(shape: Sequence[int]) -> Array:
    found = rows(shape)
    if jnp.shape(found) != tuple(shape):
      raise UserError(
        f'The table {type(table).__name__} of {type(method).__name__} returned shape '
        f'{list(jnp.shape(found))}; expected what it was called with, {list(shape)}.'
      )
    return found

  return checked


def masked_mean(x: Array, mask: Array) -> Array:
  """[B, T, H] -> [B, H], the mean over the tokens of mask bool[B, T]; 0 for an example of none."""
  weights = mask[..., None].astype(x.dtype)
  return jnp.sum(x * weights, 1) / jnp.maximum(jnp.sum(weights, 1), 1)


def placeholder(method: PromptMethod, sizes: Sizes, task_id: int = 0) -> Context:
  """A context of one padding token, for initialising and for methods that read no input.

  Args:
    method: the method, which gets what it declares.
    sizes: of the model.
    task_id: the prompt that is asked for, of a method that holds several.
  """
  width = sizes.stacks[sizes.input_stack].H
  tokens = jnp.zeros((1, 1), jnp.int32)
  inputs = {
    'tokens': tokens,
    'embeds': jnp.zeros((1, 1, width), jnp.float32),
    'mask': tokens > 0,
    'pooled': jnp.zeros((1, width), jnp.float32),
    'hidden': jnp.zeros((1, 1, width), jnp.float32),
  }
  features = dict.fromkeys(features_of(method), jnp.zeros(1, jnp.int32))
  return context_for(method, sizes, inputs, {**features, TASK: jnp.full((1,), task_id, jnp.int32)})


def first_values(method: PromptMethod, key: Array, sizes: Sizes) -> tuple[Injections, Tree]:
  """What a method first injects, and its first variables; pure, so that it may be traced."""
  with failures_explained(method):
    injections, variables = method.init_with_output(key, placeholder(method, sizes))
  check_injections(method, injections, sizes, 1)
  return cast(Injections, injections), cast(Tree, variables)


def injected(
  method: PromptMethod,
  params: Mapping[str, Any],
  constants: Mapping[str, Any],
  sizes: Sizes,
  task_id: int = 0,
) -> Injections:
  """What a method injects for one padding token; of use where the input does not matter."""
  # What a file holds is NumPy's; a method may use what only JAX's arrays have (`.at`).
  variables = jax.tree.map(jnp.asarray, {'params': params, 'constants': constants})
  with failures_explained(method, passing=OF_A_FILE):
    return cast(Injections, method.apply(variables, placeholder(method, sizes, task_id)))


def materialise(
  method: PromptMethod,
  params: Mapping[str, Any],
  constants: Mapping[str, Any],
  sizes: Sizes,
  task_id: int | None = None,
) -> Injections:
  """Evaluates a method that does not read its input; the result replaces it at serving.

  Args:
    method: the method.
    params: its trained parameters.
    constants: its other state; {} if it has none.
    sizes: of the model.
    task_id: whose prompt, of a method that reads "task_id"; ignored by others.

  Returns:
    Injections of plain arrays whose batch axis is 1.

  Raises:
    UserError: the injections depend on the input, so that no arrays can stand for the method; or
      they depend on the task and none is given.
  """
  name = type(method).__name__
  if reads := method.depends_on - {TASK}:
    raise UserError(
      f'{name} reads {", ".join(sorted(reads))} of each input, so it is no fixed set of arrays; '
      'keep the method itself.'
    )
  if task_id is None and method.depends_on:
    raise UserError(f'{name} holds a prompt for each task; task_id must say which one is wanted.')
  return injected(method, params, constants, sizes, task_id or 0)


def check_least(module: nn.Module, **least: float) -> None:
  """Refuses a setting below its least value, `check_least(self, rank=1)`.

  Raises:
    UserError: names the setting, its value and the least one.
  """
  for name, value in least.items():
    if getattr(module, name) < value:
      raise UserError(
        f'{type(module).__name__}.{name} is {getattr(module, name)}; it must be at least {value}.'
      )


def check_choices(module: nn.Module, **known: Collection[str]) -> None:
  """Refuses a setting that is none of the known values, `check_choices(self, mode=MODES)`.

  Raises:
    UserError: names the setting, its value and the known ones.
  """
  for name, values in known.items():
    if getattr(module, name) not in values:
      raise UserError(
        f'{type(module).__name__}.{name} is {getattr(module, name)!r}; known: {", ".join(values)}.'
      )


def check_length(method: PromptMethod) -> None:
  """Refuses a prompt without rows."""
  if method.length < 1:
    name = type(method).__name__
    raise UserError(f'{name}.length is {method.length}; a prompt has at least 1 row.', ['length'])
