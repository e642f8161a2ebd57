"""Features of an example: which value of its task, user, language, ... it has, as a number.

A prompt method names what it reads in `depends_on`. The values are those of the training examples,
numbered in alphabetical order; a prompt file keeps them.
"""

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from prompt_jax.errors import UserError, unknown
from prompt_jax.injections import TASK, Method, features_of, lacking

# The field of an example with the columns of its file that are neither input nor target.
COLUMNS = 'other_columns'
# Feature -> value -> its number.
Numbers = Mapping[str, Mapping[str, int]]


class HasFields(Protocol):
  """What features need of an example, see `data.example.Example`."""

  @property
  def task(self) -> str: ...
  @property
  def fields(self) -> Mapping[str, Any]: ...
  @property
  def inputs_text(self) -> str: ...


def numbered(
  names: Collection[str], tasks: Sequence[str], examples: Sequence[HasFields]
) -> dict[str, dict[str, int]]:
  """The values of features in training examples, and their numbers.

  Args:
    names: of the features.
    tasks: names of the tasks, in the order of their numbers.
    examples: to train on.

  Raises:
    UserError: an example lacks a feature.
  """
  found = {n: sorted({value_of(e, n) for e in examples}) for n in sorted(names) if n != TASK}
  values = found | ({TASK: list(tasks)} if TASK in names else {})
  return {name: {value: i for i, value in enumerate(of)} for name, of in values.items()}


def in_file(method: Method | None, metadata: Mapping[str, Any], task: Any) -> Numbers:
  """The values of the features that a prompt reads, as its file says.

  Args:
    method: the prompt; None for the bare model.
    metadata: of its file.
    task: the `data.example.Task` that it is asked about; None for texts without a task.

  Raises:
    UserError: a task that a prompt of several tasks was not trained on.
  """
  names = features_of(method)
  found = {TASK: metadata.get('tasks') or [], **(metadata.get('features') or {})}
  if task is None and TASK in names:
    raise lacking(type(method).__name__, names)
  for part in (task.parts or (task,)) if TASK in names else ():
    if part.name not in found[TASK]:
      raise unknown(
        'task of this prompt', part.name, found[TASK], 'It has a prompt for those alone.'
      )
  return {name: {value: i for i, value in enumerate(found[name])} for name in sorted(names)}


def ids_of(examples: Sequence[HasFields], numbers: Numbers) -> dict[str, np.ndarray]:
  """Feature -> int32[n], the number of each example's value.

  Raises:
    UserError: an example lacks a feature, or has a value that no training example has.
  """
  found = {}
  for name, known in numbers.items():
    values = [value_of(e, name) for e in examples]
    for value, example in zip(values, examples, strict=True):
      if value not in known:
        raise unknown(
          f'{name} of the example {example.inputs_text[:40]!r}', value, known,
          'The prompt was tuned on those alone: correct the value, or leave the example out.',
        )  # fmt: skip
    found[name] = np.array([known[value] for value in values], np.int32)
  return found


def value_of(example: HasFields, name: str) -> str:
  """The value of a feature, as text; numbers and truth values as JSON writes them.

  Raises:
    UserError: there is none.
  """
  if name == TASK:
    return example.task
  there = {**example.fields, **example.fields.get(COLUMNS, {})}
  value = there.get(name)
  written = value.strip() if isinstance(value, str) else json.dumps(value, default=str)
  if written in ('', 'null', 'NaN'):
    others = ', '.join(sorted(there.keys() - {COLUMNS})) or 'none'
    raise UserError(
      f'The prompt method reads {name!r} of each example, and {example.inputs_text[:40]!r} of '
      f'{example.task!r} has none. Give data with a column of that name, filled in every row, or '
      f'name another column in the settings of the method. Columns besides the text: {others}.'
    )
  return written


def checksum(ids: Mapping[str, np.ndarray], value: int) -> int:
  """`value` with the numbers of features; those of tasks follow from the tasks themselves."""
  for name in sorted(ids.keys() - {TASK}):
    value = zlib.crc32(name.encode() + ids[name].tobytes(), value)
  return value
