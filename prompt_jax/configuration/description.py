"""Settings as text: the text of a configuration that was recorded, and Python objects as literals.

For the record of a run, an object is a literal that differs when what it computes differs: a number
is its own description; a method, a loss or an optimizer is described by its class and fields; a
function by its name, a digest of its source and what it encloses; a task by its name and a digest
of its examples.
"""

import ast
import dataclasses
import functools
import hashlib
import inspect
import re
import types
from collections.abc import Mapping, Set
from typing import Any

import jax
import numpy as np

from prompt_jax.checkpoints.prompt_file import OWN_FIELDS
from prompt_jax.data.example import Task
from prompt_jax.data.in_memory import memory_table


def settings_of_text(text: str) -> dict[str, str]:
  """{'STEPS': '100'} of gin text, which has one setting a line (or goes on indented)."""
  joined = re.sub(r'\\?\n +', ' ', text)
  pairs = (line.split(' = ', 1) for line in joined.splitlines() if ' = ' in line)
  return {name: ' '.join(value.split()) for name, value in pairs if not name.startswith('#')}


def value_of(found: Mapping[str, str], name: str) -> Any:
  """What a setting is: macros are followed, Python literals become values, the rest stays text.

  Args:
    found: see `settings_of_text`.
    name: of a macro or binding; None if there is none.
  """
  seen: set[str] = set()
  while name in found and name not in seen:
    seen.add(name)
    text = found[name]
    if not text.startswith('%'):
      break
    name = text[1:]
  else:
    return None
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return text


PLAIN = (bool, int, float, str, bytes, type(None))
TABLES = ('pandas', 'datasets')  # libraries whose objects hold rows
DIGITS = 16  # of a digest
LONGEST = 50  # list or dict that is written out


def literal(value: Any) -> str:
  """The description on one line of Python."""
  return repr(describe(value))


def describe(value: Any) -> Any:
  """Numbers, texts, lists and dicts that are equal for values that compute the same.

  Raises:
    UserError: examples of a task cannot be read.
  """
  return _describe(value, ())


def _describe(value: Any, inside: tuple[int, ...]) -> Any:
  if isinstance(value, PLAIN):
    return value
  if id(value) in inside:  # a function that encloses itself
    return '...'
  inside = (*inside, id(value))
  each = functools.partial(_describe, inside=inside)
  if isinstance(value, Task):
    return _task(value, each)
  if isinstance(value, type | types.ModuleType):
    return _name(value)
  if isinstance(value, tuple) and hasattr(value, '_asdict'):
    return {'class': _name(type(value)), 'fields': {k: each(v) for k, v in value._asdict().items()}}
  if isinstance(value, list | tuple):
    return _short([each(v) for v in value])
  if isinstance(value, Mapping):
    found = {k if isinstance(k, PLAIN) else repr(k): each(v) for k, v in value.items()}
    return _short(found)
  if type(value).__module__.split('.')[0] in TABLES:
    return _short([row.values for row in memory_table(value, 'given').rows], most=0)
  if isinstance(value, Set):
    return sorted((each(v) for v in value), key=repr)
  if isinstance(value, np.ndarray | np.generic | jax.Array):
    return _array(np.asarray(value))
  if isinstance(value, functools.partial):
    return {'partial': each(value.func), 'args': each(value.args), 'keywords': each(value.keywords)}
  if dataclasses.is_dataclass(value):
    names = [f.name for f in dataclasses.fields(value) if f.init and f.name not in OWN_FIELDS]
    fields = {name: each(getattr(value, name)) for name in names}
    return {'class': _name(type(value)), 'fields': fields, **_source(type(value))}
  return _other(value, each)


def _other(value: Any, each: Any) -> Any:
  """Functions, methods, and objects of classes that we know nothing of."""
  value = inspect.unwrap(value) if callable(value) else value
  if inspect.ismethod(value):
    return {'method': _name(value.__func__), 'of': each(value.__self__)}
  if inspect.isfunction(value):
    enclosed = [each(cell.cell_contents) for cell in value.__closure__ or () if _filled(cell)]
    defaults = each([value.__defaults__, value.__kwdefaults__])
    return {'function': _name(value), **_source(value), 'encloses': enclosed, 'defaults': defaults}
  if callable(value) and hasattr(value, '__qualname__'):  # compiled
    return _name(value)
  fields = {k: each(v) for k, v in getattr(value, '__dict__', {}).items()}
  return {'class': _name(type(value)), 'fields': fields, **_source(type(value))}


def _task(task: Task, each: Any) -> dict[str, Any]:
  """A task by its name and what its examples are."""
  splits = {name: each(load) for name, load in task.splits.items()}
  facts = {'task': task.name, 'labels': each(task.labels), 'metrics': each(task.metrics)}
  others = (task.postprocess, task.right, task.score)
  return {**facts, 'examples': _digest(repr(splits)), 'functions': _digest(repr(each(others)))}


def _short(found: Any, most: int = LONGEST) -> Any:
  """A long list or dict as its size and a digest."""
  return found if len(found) <= most else {'items': len(found), 'digest': _digest(repr(found))}


def _array(values: np.ndarray) -> dict[str, Any]:
  if values.dtype == object:
    return {'values': _digest(repr(values.tolist()))}
  digest = hashlib.sha256(values.tobytes()).hexdigest()[:DIGITS]
  return {'dtype': str(values.dtype), 'shape': list(values.shape), 'values': digest}


def _source(value: Any) -> dict[str, str]:
  """A digest of the source of what is not ours; our own is told by the version that runs."""
  if (getattr(value, '__module__', None) or '').split('.')[0] == 'prompt_jax':
    return {}
  code = getattr(value, '__code__', None)
  try:
    source = inspect.getsource(value)
  except (OSError, TypeError):  # typed at a prompt
    source = ''
  if code is not None and (not source or value.__name__ == '<lambda>'):  # a line may have several
    constants = [c for c in code.co_consts if isinstance(c, PLAIN)]
    source += repr((code.co_code, code.co_names, constants))
  return {'source': _digest(source)} if source else {}


def _filled(cell: Any) -> bool:
  try:
    return cell.cell_contents is not cell
  except ValueError:  # not assigned yet
    return False


def _name(value: Any) -> str:
  module = getattr(value, '__module__', None)
  name = getattr(value, '__qualname__', None) or getattr(value, '__name__', repr(value))
  return f'{module}.{name}' if module else str(name)


def _digest(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
