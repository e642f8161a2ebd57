"""A prompt method as JSON and back, so that a prompt file can be used without its configuration."""

import dataclasses
import importlib
from typing import Any

import flax.linen as nn
import numpy as np

from prompt_jax.errors import UserError

JSON = Any  # dict, list, str, int, float, bool or None
OWN_FIELDS = ('parent', 'name')  # of every Flax module; not part of what it computes
# Version 0.1.0 had these modules in prompt_jax.prompts: today's folders in prompts/methods.
FOLDERS = {'adept': 'input', 'deep_prompt': 'deep', 'input_prompt': 'input',
           'prefix_tuning': 'prefix', 'task_prompts': 'multitask'}  # fmt: skip
MOVED = {f'prompts.{name}': f'prompts.methods.{folder}.{name}' for name, folder in FOLDERS.items()}


def describe(value: Any) -> JSON:
  """What `build` needs to make an equal method: classes by name, and their fields.

  Args:
    value: a module or another dataclass whose fields are again such, numbers, texts or lists.
      Arrays (what a prompt was initialised with) leave only their shape: trained values are
      stored as parameters.

  Raises:
    UserError: a field holds something else.
  """
  if value is None or isinstance(value, bool | int | float | str):
    return value
  if isinstance(value, list | tuple):
    return [describe(v) for v in value]
  if isinstance(value, dict):
    return {'dict': {k: describe(v) for k, v in value.items()}}
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    kind = type(value)
    names = [f.name for f in dataclasses.fields(value) if f.init and f.name not in OWN_FIELDS]
    fields = {name: describe(getattr(value, name)) for name in names}
    return {'class': f'{kind.__module__}.{kind.__qualname__}', 'fields': fields}
  if np.ndim(value) and np.asarray(value).dtype != object:
    return {'shape': list(np.shape(value))}
  raise UserError(
    f'A part of the prompt method is {value!r}, a {type(value).__name__}, which cannot be written '
    'into a prompt file. Its fields may be numbers, texts, lists, dicts, arrays, dataclasses and '
    'modules; in place of a function take one of prompts.initializers, or a dataclass that is '
    'called.'
  )


def build(description: JSON) -> Any:
  """The inverse of `describe`; lists become tuples.

  Raises:
    UserError: a class is not there, or takes other fields.
  """
  if isinstance(description, list):
    return tuple(build(v) for v in description)
  if not isinstance(description, dict):
    return description
  try:
    if 'shape' in description:
      return np.zeros(description['shape'], np.float32)
    if 'dict' in description:
      return {k: build(v) for k, v in description['dict'].items()}
    kind = _find(description['class'])
    fields = {name: build(v) for name, v in description['fields'].items()}
  except (KeyError, TypeError, ValueError, AttributeError) as e:
    raise UserError(f'The prompt file tells no method that can be built ({e!r}).') from None
  try:
    return kind(**fields)
  except TypeError as e:
    raise UserError(
      f'{description["class"]} does not take the fields of this prompt file: {e}. '
      'Use the version of the package that wrote it.'
    ) from None


def _find(name: str) -> type:
  """The class of that name. Only modules and dataclasses: a file must not call anything else."""
  module, _, attribute = name.rpartition('.')
  package, _, rest = module.partition('.')
  moved = MOVED.get(rest) if package == 'prompt_jax' else None
  try:
    found = getattr(importlib.import_module(f'prompt_jax.{moved}' if moved else module), attribute)
  except (ImportError, AttributeError, ValueError):
    raise UserError(
      f'The prompt file needs {name}, which cannot be imported. Install or put on PYTHONPATH the '
      'package that defines this prompt method; a class inside a function cannot be found again.'
    ) from None
  if not (
    isinstance(found, type) and (issubclass(found, nn.Module) or dataclasses.is_dataclass(found))
  ):
    raise UserError(f'The prompt file names {name} as a part of its method, but it is none.')
  return found
