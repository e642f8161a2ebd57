"""A trained prompt as one safetensors file that says what it is and which model it belongs to.

Tensors are named "params/...", "constants/..." and "initial/..." (the prompt before training, from
which task vectors are computed). Everything else is one JSON object in the header, under
"prompt_jax", with a checksum of the tensors and one of the object. The method is described there,
so that a file can be used without its configuration. Reading needs NumPy and safetensors only.
"""

import contextlib
import dataclasses
import hashlib
import importlib
import json
import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError

JSON = Any  # dict, list, str, int, float, bool or None
OWN_FIELDS = ('parent', 'name')  # of every Flax module; not part of what it computes
# Version 0.1.0 had these modules in prompt_jax.prompts: today's folders in prompts/methods.
FOLDERS = {'adept': 'input', 'deep_prompt': 'deep', 'input_prompt': 'input',
           'prefix_tuning': 'prefix', 'task_prompts': 'multitask'}  # fmt: skip
MOVED = {f'prompts.{name}': f'prompts.methods.{folder}.{name}' for name, folder in FOLDERS.items()}


def describe_method(value: Any) -> JSON:
  """What `build_method` needs to make an equal method: classes by name, and their fields.

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
    return [describe_method(v) for v in value]
  if isinstance(value, dict):
    return {'dict': {k: describe_method(v) for k, v in value.items()}}
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    kind = type(value)
    names = [f.name for f in dataclasses.fields(value) if f.init and f.name not in OWN_FIELDS]
    fields = {name: describe_method(getattr(value, name)) for name in names}
    return {'class': f'{kind.__module__}.{kind.__qualname__}', 'fields': fields}
  if np.ndim(value) and np.asarray(value).dtype != object:
    return {'shape': list(np.shape(value))}
  raise UserError(
    f'A part of the prompt method is {value!r}, a {type(value).__name__}, which cannot be written '
    'into a prompt file. Its fields may be numbers, texts, lists, dicts, arrays, dataclasses and '
    'modules; in place of a function take one of prompts.initializers, or a dataclass that is '
    'called.'
  )


def build_method(description: JSON) -> Any:
  """The inverse of `describe_method`; lists become tuples.

  Raises:
    UserError: a class is not there, or takes other fields.
  """
  if isinstance(description, list):
    return tuple(build_method(v) for v in description)
  if not isinstance(description, dict):
    return description
  try:
    if 'shape' in description:
      return np.zeros(description['shape'], np.float32)
    if 'dict' in description:
      return {k: build_method(v) for k, v in description['dict'].items()}
    kind = _find_method(description['class'])
    fields = {name: build_method(v) for name, v in description['fields'].items()}
  except (KeyError, TypeError, ValueError, AttributeError) as e:
    raise UserError(f'The prompt file tells no method that can be built ({e!r}).') from None
  try:
    return kind(**fields)
  except TypeError as e:
    raise UserError(
      f'{description["class"]} does not take the fields of this prompt file: {e}. '
      'Use the version of the package that wrote it.'
    ) from None


def _find_method(name: str) -> type:
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
  if not (isinstance(found, type) and dataclasses.is_dataclass(found)):  # as every Flax module is
    raise UserError(f'The prompt file names {name} as a part of its method, but it is none.')
  return found


Tree = dict[str, Any]
VERSION = 2
WITHOUT_CHECKSUMS = 1  # a version that is read too
CHECKSUMS = ('tensors_sha256', 'sha256')  # of the tensors; of all else in the header
# What to do with a file that is none of ours.
AGAIN = 'Copy it again, or train it again.'
FOREIGN = 'If it is a prompt that another library wrote: prompt-jax import.'
REQUIRED = ('base_model', 'fingerprint', 'method', 'width')
# What the metadata that are used may be, besides null.
TYPES = {
  'base_model': str, 'fingerprint': str, 'method': str, 'width': int, 'model': str,
  'vocabulary_file': str, 'labels': list, 'words': dict, 'method_config': dict, 'length': int,
  'step': int, 'input_length': int, 'target_length': int,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Prompt:
  """What a prompt file holds.

  Attributes:
    params: nested dicts of arrays, the method's parameters (`params['prompt']` of the model).
      In a file of kind "weights": all that was trained, from the root of the model's tree.
    constants: nested dicts of arrays, the method's non-trainable state (`constants['prompt']` of
      the model).
    metadata: JSON values by name. Required: "base_model" (name), "fingerprint" (of its weights),
      "method" (class name), "width" (H). Usual: "gin" (text that builds the method), "length"
      (P), "placement", "sees_input", "kv_bias", "vocabulary" (sha256), "task", "labels",
      "words" (label of the data -> its word in "labels"), "columns" (of a file of one's own),
      "metric", "value", "step", "seed".
    initial: as `params`, before training; empty if not kept.
    kind: "prompt", or "weights" for what another pattern trained.
  """

  params: Tree
  constants: Tree
  metadata: dict[str, Any]
  initial: Tree = dataclasses.field(default_factory=dict)
  kind: str = 'prompt'


def save_prompt(path: str | os.PathLike, prompt: Prompt) -> None:
  """Writes the file whole or not at all; equal prompts give equal bytes.

  Args:
    path: ends in ".safetensors" by custom; its folder is created.
    prompt: what to save.

  Raises:
    UserError: the folder cannot be written; an earlier file is still there.
    ValueError: required metadata is missing.
  """
  missing = [name for name in REQUIRED if name not in prompt.metadata]
  if missing:
    raise ValueError(f'Metadata lacks {", ".join(missing)}; got {", ".join(prompt.metadata)}')
  tensors: dict[str, np.ndarray] = {}
  for group in ('params', 'constants', 'initial'):
    for name, leaf in _flatten(getattr(prompt, group)).items():
      tensors[f'{group}/{name}'] = np.ascontiguousarray(leaf).reshape(np.shape(leaf))
  header = {'version': VERSION, 'kind': prompt.kind, **prompt.metadata}
  header[CHECKSUMS[0]] = _digest(tensors)
  header[CHECKSUMS[1]] = _digest_of_json(header)
  # One key: safetensors writes several in random order.
  text = {'prompt_jax': json.dumps(header, sort_keys=True, ensure_ascii=False)}
  write_atomically(path, safetensors.numpy.save(tensors, text))


class Facts(NamedTuple):
  """What a file says of itself: its kind, its metadata, and how many numbers its `params` have."""

  kind: str
  metadata: dict[str, Any]
  numbers: int


def load_facts(path: str | os.PathLike) -> Facts:
  """Reads the header alone: the arrays may be those of a whole model.

  Raises:
    UserError: as `load_prompt`, but for what the arrays hold.
  """
  path = pathlib.Path(path)
  with _opened(path) as file:
    header = (file.metadata() or {}).get('prompt_jax')
    names = [name for name in file.keys() if name.startswith('params/')]  # noqa: SIM118
    numbers = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
  return Facts(*_metadata(path, header), numbers)


def load_prompt(path: str | os.PathLike, kind: str | None = 'prompt') -> Prompt:
  """Reads a file that `save_prompt` wrote.

  Args:
    path: of the file.
    kind: that it must be of; None for any.

  Raises:
    UserError: there is no such file, it is damaged, or it is something else.
  """
  path = pathlib.Path(path)
  with _opened(path) as file:
    header = (file.metadata() or {}).get('prompt_jax')
    tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  got, metadata = _metadata(path, header, tensors)
  if kind is not None and got != kind:
    raise UserError(f'{str(path)!r} holds {got!r}; expected a file of kind {kind!r}.')
  groups: dict[str, Tree] = {'params': {}, 'constants': {}, 'initial': {}}
  for name, tensor in tensors.items():
    group, *keys = name.split('/')
    if group not in groups or not keys:
      raise UserError(
        f'{str(path)!r} holds a tensor {name!r}; expected names that begin with '
        '"params/", "constants/" or "initial/".'
      )
    branch = groups[group]
    for key in keys[:-1]:
      branch = branch.setdefault(key, {})
    branch[keys[-1]] = tensor
    _check_finite(path, name, tensor)
  return Prompt(metadata=metadata, kind=got, **groups)


def same_prompt(a: Prompt, b: Prompt) -> bool:
  """Whether the parameters of two prompts are the same numbers."""
  return _digest(_flatten(a.params)) == _digest(_flatten(b.params))


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[Any]:
  """A safetensors file."""
  if os.path.isdir(path):
    raise UserError(f'{str(path)!r} is a folder; expected a prompt file. {FOREIGN}')
  if not os.path.isfile(path):
    raise UserError(f'No prompt file {str(path)!r}.{_neighbours(path)}')
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      yield file
  except (safetensors.SafetensorError, OSError, ValueError) as e:
    raise UserError(
      f'{str(path)!r} is damaged or no safetensors file ({e}). Expected a prompt file written by '
      f'prompt_jax; copy it again, or train it again. {FOREIGN}'
    ) from None


def differing_setting(one: Prompt, two: Prompt) -> str:
  """The first setting, or feature with other values, in which two prompts differ; '' for none.

  How a prompt began is none: it has no meaning for trained numbers.
  """
  for name, said in (('method_config', ''), ('features', 'values')):
    first, second = (p.metadata.get(name) for p in (one, two))
    if first is not None and second is not None and (found := _difference(first, second, said)):
      return found
  return ''


def _difference(one: JSON, two: JSON, name: str = '') -> str:
  if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
    inner = lambda key: name if key == 'fields' else f'{name}.{key}'.strip('.')
    keys = [key for key in one if key != 'initializer']
    return next(filter(None, (_difference(one[k], two[k], inner(k)) for k in keys)), '')
  return '' if one == two else f'{name} {one} and {two}'


def check_model(
  prompt: Prompt, *, base_model: str, fingerprint: str, width: int, path: str | os.PathLike = ''
) -> None:
  """Refuses a prompt that was trained on another model.

  Args:
    prompt: the prompt.
    base_model: name of the model that it is to be used with.
    fingerprint: of that model's weights.
    width: H of that model.
    path: where the prompt was read, for the message.

  Raises:
    UserError: the fingerprints differ.
  """
  theirs = prompt.metadata
  if theirs['fingerprint'] == fingerprint:
    return
  what = f'The prompt {str(path)!r}' if path else 'The prompt'
  wide = ''
  if theirs['width'] != width:
    wide = f' Their widths differ as well: {theirs["width"]} and {width}.'
  raise UserError(
    f'{what} was trained on {theirs["base_model"]!r} (fingerprint {theirs["fingerprint"]}), '
    f'not on {base_model!r} (fingerprint {fingerprint}).{wide} '
    'Give the model that the prompt belongs to.'
  )


def _check_finite(path: pathlib.Path, name: str, tensor: np.ndarray) -> None:
  if not np.isfinite(tensor).all():
    raise UserError(
      f'{str(path)!r} holds NaN or infinity in {name!r}: the file was damaged or its training '
      'diverged. Copy it again, or train it with a lower learning rate.'
    )


def _metadata(
  path: pathlib.Path, header: str | None, tensors: dict[str, np.ndarray] | None = None
) -> tuple[str, dict[str, Any]]:
  """The kind, and the checked JSON object of the header without what is not of the prompt.

  Compares the checksum of the object, and that of the tensors where they were read.
  """
  if header is None:
    raise UserError(
      f'{str(path)!r} is a safetensors file, but not one of prompt_jax: its header has no '
      f'"prompt_jax" entry. {FOREIGN}'
    )
  try:
    metadata = json.loads(header)
    own = metadata.pop(CHECKSUMS[1], None)
    now = _digest_of_json(metadata)
    of_tensors = metadata.pop(CHECKSUMS[0], None)
    version, kind = metadata.pop('version'), metadata.pop('kind')
    missing = [name for name in REQUIRED if name not in metadata]
  except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as e:
    raise UserError(
      f'{str(path)!r} is damaged: its metadata cannot be read ({e!r}). {AGAIN}'
    ) from None
  if version not in (VERSION, WITHOUT_CHECKSUMS):
    raise UserError(
      f'{str(path)!r} has format version {version}; this prompt_jax reads version {VERSION}. '
      'Use the prompt_jax that wrote it.'
    )
  if version == VERSION or own or of_tensors:
    if own != now:
      raise UserError(f'{str(path)!r} is damaged: its metadata do not have their checksum. {AGAIN}')
    if tensors is not None and of_tensors != _digest(tensors):
      raise UserError(f'{str(path)!r} is damaged: its numbers do not have their checksum. {AGAIN}')
  if missing:
    raise UserError(f'The metadata of {str(path)!r} lack {", ".join(missing)}.')
  for name, kinds in TYPES.items():
    value = metadata.get(name)
    listed = value if isinstance(value, list) else []
    if not isinstance(value, kinds | None) or not all(isinstance(item, str) for item in listed):
      raise UserError(f'{str(path)!r} is damaged: its metadata say {name} is {value!r}. {AGAIN}')
  return kind, metadata


def _digest(tensors: dict[str, np.ndarray]) -> str:
  """Of the names, dtypes, shapes and values of tensors."""
  digest = hashlib.sha256()
  for name in sorted(tensors):
    tensor = tensors[name]
    digest.update(f'{name} {tensor.dtype.name} {tensor.shape}'.encode())
    digest.update(tensor.tobytes())
  return digest.hexdigest()


def _digest_of_json(found: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _neighbours(path: pathlib.Path) -> str:
  """A sentence about the prompt files that are in the folder instead."""
  if not os.path.isdir(path.parent):
    return f' The folder {str(path.parent)!r} does not exist.'
  names = sorted(p.name for p in path.parent.glob('*.safetensors'))
  return f' That folder has: {", ".join(names)}.' if names else ' That folder has no such file.'


def _flatten(tree: Tree, prefix: str = '') -> dict[str, Any]:
  """{"a/b": leaf} of nested dicts, in the order of the names."""
  flat: dict[str, Any] = {}
  for key, value in sorted(tree.items()):
    name = f'{prefix}{key}'
    flat |= _flatten(value, f'{name}/') if isinstance(value, dict) else {name: value}
  return flat
