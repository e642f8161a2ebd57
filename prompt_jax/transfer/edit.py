"""`prompt-jax edit`: a prompt file made of finished ones, without training."""

import math
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax.checkpoints.backbone import EMBEDDED, find
from prompt_jax.checkpoints.prompt_file import (
  Prompt,
  build_method,
  describe_method,
  differing_setting,
  load_prompt,
  save_prompt,
)
from prompt_jax.errors import UserError, unknown
from prompt_jax.injections import TASK, Injections
from prompt_jax.prompts.base import PromptMethod, Tree, materialise
from prompt_jax.prompts.from_injections import method_of
from prompt_jax.transfer import arithmetic

AVERAGE, ADD, CONCATENATE, KEEP = 'average', 'add', 'concatenate', 'keep'
OPERATIONS = (AVERAGE, ADD, CONCATENATE, KEEP)
WEIGHTED = (AVERAGE, ADD)
# What prompts must share to be one: the model and how its texts become ids.
_SHARED = ('fingerprint', 'vocabulary')
# Kept where all agree; of the lengths the largest.
_AGREED = (
  'base_model', 'model', 'vocabulary_file', 'task', 'tasks', 'labels', 'words', 'width',
)  # fmt: skip
_LARGEST = ('input_length', 'target_length')


def edit_prompt(
  operation: str,
  files: Sequence[str | os.PathLike],
  destination: str | os.PathLike,
  *,
  weights: Sequence[float] | None = None,
  rows: Sequence[int] | None = None,
) -> pathlib.Path:
  """Writes a prompt that is computed from others of the same model.

  Args:
    operation: "average" of the parameters; "add", the sum of their task vectors on the prompt that
      all of them began with; "concatenate", the rows and keys of all; "keep", some of one's own.
    files: prompt files; of "keep" one.
    destination: the file to write, which does not exist yet.
    weights: of each file, for "average" and "add"; None for 1 each. A negative one subtracts.
    rows: the numbers of the rows that "keep" keeps, from 0; -1 is the last.

  Returns:
    The file.

  Raises:
    UserError: the prompts are of different models or forms, began differently, or the destination
      exists.
  """
  place = pathlib.Path(destination)
  _check_options(operation, files, weights, rows)
  if os.path.exists(place):
    raise UserError(f'{str(destination)!r} exists already. Give another name, or remove it first.')
  prompts = {str(file): load_prompt(file) for file in files}
  _check_one_model(prompts)
  found = list(prompts.values())
  if operation in WEIGHTED:
    given = list(weights or [1.0] * len(files))
    params, method, initial = _weighted(operation, prompts, given)
  else:
    given, initial = None, {}
    params, method = _of_rows(operation, prompts, rows or ())
  metadata = {
    **_common(prompts),
    'method': type(method).__name__,
    'method_config': describe_method(method),
    'length': getattr(method, 'length', 0),
    'edited': {
      'operation': operation,
      'of': list(prompts),
      **({'weights': given} if given else {}),
      **({'rows': list(rows)} if rows else {}),
    },
  }
  constants = found[0].constants if operation in WEIGHTED else {}
  save_prompt(place, Prompt(params, constants, metadata, initial))
  return place


def _check_options(
  operation: str,
  files: Sequence[Any],
  weights: Sequence[float] | None,
  rows: Sequence[int] | None,
) -> None:
  if operation not in OPERATIONS:
    raise unknown('operation', operation, OPERATIONS, parameters=['operation'])
  if weights is not None and operation not in WEIGHTED:
    raise UserError(
      f'weights are of {" and ".join(WEIGHTED)}; {operation!r} has none.', ['weights']
    )
  if weights is not None and len(weights) != len(files):
    raise UserError(
      f'There are {len(weights)} weights for {len(files)} prompts; give one for each.', ['weights']
    )
  if weights is not None and not all(map(math.isfinite, weights)):
    raise UserError(
      f'The weights are {", ".join(map(str, weights))}; expected finite numbers.', ['weights']
    )
  if operation == AVERAGE and weights is not None and abs(sum(weights)) < 1e-6:
    raise UserError(
      f'The weights {", ".join(map(str, weights))} add up to 0, and an average divides by their '
      'sum. To subtract task vectors, take "add".',
      ['weights'],
    )
  if (rows is not None) != (operation == KEEP):
    raise UserError('rows are what "keep" keeps, and it needs them, such as 0,1,2.', ['rows'])
  if operation == KEEP and len(files) != 1:
    raise UserError(f'"keep" is of one prompt; got {len(files)}.')
  if not files:
    raise UserError('Give at least one prompt file.')


def _check_one_model(prompts: Mapping[str, Prompt]) -> None:
  first, *others = prompts
  for other in others:
    for name in _SHARED:
      one, two = (prompts[file].metadata.get(name) for file in (first, other))
      if one != two:
        models = [prompts[file].metadata['base_model'] for file in (first, other)]
        raise UserError(
          f'{first!r} and {other!r} are of different models: {name} {one} ({models[0]}) and {two} '
          f'({models[1]}). Numbers of one mean nothing to another; give prompts of one model.'
        )


def _weighted(
  operation: str, prompts: Mapping[str, Prompt], weights: Sequence[float]
) -> tuple[Tree, PromptMethod, Tree]:
  """Parameters, method, and the start that further sums need."""
  (first, one), *others = prompts.items()
  method = _method(first, one)
  for other, two in others:
    if _shapes(one) != _shapes(two) or type(_method(other, two)) is not type(method):
      raise UserError(
        f'{first!r} and {other!r} have parameters of different forms: {_form(one)} and '
        f'{_form(two)}. Give prompts of one method and length; "concatenate" takes unlike ones.'
      )
    _check_settings(first, one, other, two)
    if not _equal(one.constants, two.constants):
      raise UserError(
        f'{first!r} and {other!r} have different constants, such as the basis of their rows, so '
        'their parameters mean different things. Train both with one seed.'
      )
  trees = [prompt.params for prompt in prompts.values()]
  if operation == AVERAGE:
    return arithmetic.average(trees, weights), method, {}
  for file, prompt in prompts.items():
    if not prompt.initial or not _equal(prompt.initial, one.initial):
      what = 'does not hold the prompt that it began with'
      if prompt.initial:
        what = f'began with another prompt than {first!r}'
      raise UserError(
        f'{file!r} {what}, from which its task vector is measured. Train the prompts from one '
        'start: the same seed and an init that reads no labels, or one warm_start file.'
      )
  return arithmetic.add_task_vectors(one.initial, trees, weights), method, one.initial


def _check_settings(first: str, one: Prompt, other: str, two: Prompt) -> None:
  """Refuses numbers of equal shapes that mean different things: of other layers, scales, tasks."""
  tasks = [p.metadata.get('tasks') for p in (one, two)]
  if TASK in _method(first, one).depends_on and tasks[0] != tasks[1]:
    raise UserError(
      f'{first!r} holds prompts of the tasks {tasks[0]}, and {other!r} of {tasks[1]}; expected '
      'the same tasks in the same order. Take the prompts of single tasks, in the folders '
      'task_prompts.'
    )
  if unlike := differing_setting(one, two):
    raise UserError(
      f'{first!r} and {other!r} are of methods with different settings: {unlike}. Their '
      'parameters mean different things; give prompts trained with the same settings.'
    )


def _of_rows(
  operation: str, prompts: Mapping[str, Prompt], rows: Sequence[int]
) -> tuple[Tree, PromptMethod]:
  """Parameters and method of plain rows and keys."""
  parts = [_plain(file, prompt) for file, prompt in prompts.items()]
  if operation == KEEP:
    _check_rows(next(iter(prompts)), parts[0], rows)
    made = method_of(arithmetic.keep(parts[0], rows))
  else:
    names = list(prompts)
    for name, part in zip(names[1:], parts[1:], strict=True):
      if not _same_structure(part, parts[0]):
        raise UserError(
          f'{names[0]!r} and {name!r} add rows or keys in different places, so these cannot stand '
          'behind each other. Give prompts of one method and placement.'
        )
    made = method_of(arithmetic.concatenate(parts))
  assert made is not None  # as each of the parts
  method, params = made
  return params, method


def _plain(file: str, prompt: Prompt) -> Injections:
  """What a prompt injects, as arrays of rows or keys."""
  method = _method(file, prompt)
  name = prompt.metadata.get('model') or EMBEDDED
  config, _ = find(name, prompt.metadata.get('vocabulary_file')).model()
  found = jax.device_get(materialise(method, prompt.params, prompt.constants, config.sizes))
  if method_of(found) is None:
    raise UserError(
      f'{file!r} is a {type(method).__name__}, which is not rows or keys alone. What can be '
      f'concatenated and cut are rows of the input and prefixes; take "{AVERAGE}" or "{ADD}".'
    )
  return found


def _check_rows(file: str, part: Injections, rows: Sequence[int]) -> None:
  sizes = [getattr(part, stack) for stack in arithmetic.STACKS]
  lengths = {x.prefix.shape[1] for x in sizes if x.prefix is not None}
  lengths |= {x.kv.shape[3] for x in sizes if x.kv is not None}
  count = min(lengths)
  wrong = [row for row in rows if not -count <= row < count]
  if wrong or not rows:
    raise UserError(
      f'{file!r} has {count} rows, 0 to {count - 1}; got {", ".join(map(str, wrong)) or "none"}.',
      ['rows'],
    )


def _method(file: str, prompt: Prompt) -> PromptMethod:
  config = prompt.metadata.get('method_config')
  if config is None:
    raise UserError(f'{file!r} does not say what its method is; train it again.')
  found: PromptMethod = build_method(config)
  return found


def _common(prompts: Mapping[str, Prompt]) -> dict[str, Any]:
  """The metadata of all, where they agree."""
  about = [prompt.metadata for prompt in prompts.values()]
  same = {n: about[0].get(n) for n in _AGREED if all(a.get(n) == about[0].get(n) for a in about)}
  if 'labels' not in same or 'words' not in same:
    warnings.warn(
      'The prompts have different labels, so the new one has none: it writes text, and `eval` '
      'takes the labels of its task.',
      stacklevel=3,
    )
    same = {n: v for n, v in same.items() if n not in ('labels', 'words')}
  lengths = {n: [a[n] for a in about if a.get(n)] for n in _LARGEST}
  return {
    **_required(about[0]),
    **same,
    **{n: max(found) for n, found in lengths.items() if found},
    'vocabulary': about[0].get('vocabulary'),
  }


def _required(about: Mapping[str, Any]) -> dict[str, Any]:
  return {name: about[name] for name in ('base_model', 'fingerprint', 'width')}


def _shapes(prompt: Prompt) -> Any:
  return jax.tree.map(np.shape, prompt.params)


def _form(prompt: Prompt) -> str:
  return f'{prompt.metadata["method"]} of {prompt.metadata.get("length", 0)} rows'


def _equal(a: Tree, b: Tree) -> bool:
  return _same_structure(a, b) and all(map(np.array_equal, jax.tree.leaves(a), jax.tree.leaves(b)))


def _same_structure(a: Tree | Injections, b: Tree | Injections) -> bool:
  return bool(jax.tree.structure(a) == jax.tree.structure(b))  # type: ignore[operator]
