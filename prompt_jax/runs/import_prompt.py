"""`prompt-jax import`: a prompt of another library as a prompt file."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from flax.traverse_util import unflatten_dict

from prompt_jax import loading
from prompt_jax.checkpoints.backbone import Backbone, load_backbone, whole_path
from prompt_jax.checkpoints.formats.t5x_checkpoint import is_checkpoint
from prompt_jax.checkpoints.prompt_file import Prompt, describe_method, save_prompt
from prompt_jax.errors import UserError
from prompt_jax.injections import TASK, Placement
from prompt_jax.models.module import only_t5
from prompt_jax.named_prompts import OF_TASKS
from prompt_jax.prompt_formats.foreign import DecoderKeysValues, Found, Rows, Trained
from prompt_jax.prompt_formats.npy import find_numpy_checkpoint, is_npy, read_npy
from prompt_jax.prompt_formats.peft import CONFIG, read_peft
from prompt_jax.prompt_formats.t5x_prompt import base_fingerprint, read_t5x
from prompt_jax.prompts.base import PromptMethod, Tree
from prompt_jax.prompts.from_injections import method_of
from prompt_jax.prompts.initialise import check_parameters
from prompt_jax.runs.task_choice import prompt_of_task


@dataclasses.dataclass(frozen=True)
class Imported:
  """What `import_prompt` wrote.

  Attributes:
    path: the prompt file.
    form: what wrote the source, such as "npy".
    what: how many rows, or keys and values, in words.
    base_model: name of the model.
    fingerprint: of the model's weights.
    command: the command that applies the prompt, that of the first task where there are several.
  """

  path: pathlib.Path
  form: str
  what: str
  base_model: str
  fingerprint: str
  command: str


def import_prompt(
  source: str,
  destination: str,
  *,
  model: str,
  vocabulary: str | None = None,
  labels: Sequence[str] | None = None,
  placement: Placement | None = None,
) -> Imported:
  """Writes a prompt of another library as a prompt file.

  Args:
    source: a .npy file, a checkpoint of T5X, or a PEFT folder.
    destination: the prompt file to write, which does not exist yet.
    model: the model it was trained on, see `load_backbone`.
    vocabulary: see `load_backbone`.
    labels: what it answers, to rank instead of write.
    placement: where its rows go; None for what the source says.

  Returns:
    What was written; of multitask prompts, the folder task_prompts beside it has each by itself.

  Raises:
    UserError: no prompt is there, it does not fit the model, or the destination exists.
  """
  place = pathlib.Path(destination)
  found = find(source)
  method, params = _method(found, placement)
  of_tasks = place.parent / OF_TASKS if TASK in method.depends_on else None
  for path in filter(None, (place, of_tasks)):
    if os.path.exists(path):
      raise UserError(f'{str(path)!r} exists already. Give another name, or remove it first.')
  backbone = load_backbone(model, vocabulary=vocabulary)
  only_t5(backbone.config, 'An imported prompt')
  _check_fits(found, backbone)
  if found.form.startswith('T5X'):
    _check_base(source, found, backbone)
  metadata = _metadata(found, method, backbone, list(labels) if labels else None)
  metadata['model'] = whole_path(model)
  metadata['vocabulary_file'] = vocabulary and whole_path(vocabulary)
  prompt, to_use = Prompt(params, {}, metadata), place
  save_prompt(place, prompt)
  if of_tasks:
    to_use = of_tasks / f'{metadata["tasks"][0]}.safetensors'
    for number, task in enumerate(metadata['tasks']):
      own = prompt_of_task(prompt, number, backbone.config.sizes)
      assert own is not None  # rows
      save_prompt(of_tasks / f'{task}.safetensors', own)
  rows = metadata['length']
  what = f'{rows} keys and values a layer'
  if not isinstance(found.prompt, DecoderKeysValues):
    what = f'{rows} rows' if isinstance(found.prompt, Rows) else type(method).__name__
  used = loading.command(to_use, model, vocabulary)
  return Imported(place, found.form, what, backbone.name, backbone.fingerprint, used)


def find(source: str) -> Found:
  """Reads a foreign prompt of any known form.

  Args:
    source: a .npy file, a folder of google-research/prompt-tuning, a PEFT folder, or a whole
      checkpoint of T5X.

  Raises:
    UserError: it is none of these, or damaged.
  """
  path = pathlib.Path(source)
  if '://' in source:
    return read_t5x(source)
  if not os.path.exists(path):
    raise UserError(f'There is no {source!r}. Give the file or folder of a prompt.')
  if os.path.isdir(path):
    if (path / CONFIG).is_file():
      return read_peft(path)
    npy = find_numpy_checkpoint(path)
    if npy is not None:
      return read_npy(npy)
    if is_checkpoint(path):
      return read_t5x(source)
  elif is_npy(path) or path.suffix == '.npy':
    return read_npy(path)
  elif path.name == CONFIG or (path.parent / CONFIG).is_file():
    return read_peft(path.parent)
  elif 'checkpoint' in path.name and path.suffix != '.safetensors':
    return read_t5x(source)
  raise UserError(
    f'{source!r} is no prompt that can be imported. Known: a .npy file (with or without that '
    'ending), the numpy_checkpoints folder of a run of google-research/prompt-tuning or one '
    f'checkpoint in it, a checkpoint of T5X, and a PEFT folder ({CONFIG} and its weights).'
  )


def _method(found: Found, placement: Placement | None) -> tuple[PromptMethod, Tree]:
  """The method that does with the numbers what the other library did, and its parameters."""
  prompt = found.prompt
  if placement and found.form.startswith('PEFT'):
    raise UserError(
      f'{found.path!r} is of {found.form}, which puts its numbers in one place only: leave out '
      'placement, which is for rows of a .npy file or of T5X.',
      ['placement'],
    )
  if isinstance(prompt, Trained):
    return prompt.method, unflatten_dict(prompt.params, sep='/')
  if placement and isinstance(prompt, Rows):
    prompt = dataclasses.replace(prompt, placement=placement)
  made = method_of(prompt.injections())
  assert made is not None  # other libraries know rows, and keys and values, alone
  return made


def _check_fits(found: Found, backbone: Backbone) -> None:
  """Refuses numbers that are not of this model's sizes."""
  cfg, prompt = backbone.config, found.prompt
  if isinstance(prompt, Rows):
    width = prompt.values.shape[1]
    if width != cfg.emb_dim:
      raise UserError(
        f'{found.path!r} holds rows of width {width}; the model {backbone.name!r} is {cfg.emb_dim} '
        'wide. Give the model that the prompt was trained on.'
      )
    return
  if isinstance(prompt, Trained):
    check_parameters(prompt.method, prompt.params, cfg.sizes, found.path, backbone.name)
    return
  layers, _, _, heads, width = prompt.values.shape
  dims = cfg.sizes.stacks['decoder']
  got, expected = (layers, heads, width), (dims.L, dims.kv_heads, dims.D)
  if got != expected:
    raise UserError(
      f'{found.path!r} holds keys and values of {got[0]} layers, {got[1]} heads of width {got[2]}; '
      f'the decoder of {backbone.name!r} has {expected[0]}, {expected[1]} and {expected[2]}. Give '
      'the model that the prompt was trained on.'
    )


def _check_base(source: str, found: Found, backbone: Backbone) -> None:
  """Refuses a checkpoint of T5X whose own model, on which the prompt was tuned, is another."""
  base = base_fingerprint(source, only_t5(backbone.config, 'A checkpoint of T5X'))
  if base not in (None, backbone.fingerprint):
    raise UserError(
      f'{found.path!r} was tuned on the model beside it, of fingerprint {base}; the model '
      f'{backbone.name!r} has {backbone.fingerprint}. Give the model that the prompt was trained '
      'on: other weights of equal shapes are another model (T5 1.1 and its LM-adapted form).',
      ['model'],
    )


def _metadata(
  found: Found,
  method: PromptMethod,
  backbone: Backbone,
  labels: list[str] | None,
) -> dict[str, Any]:
  return {
    'base_model': backbone.name,
    'fingerprint': backbone.fingerprint,
    'width': backbone.config.emb_dim,
    'vocabulary': backbone.vocabulary.sha256,
    'method': type(method).__name__,
    'method_config': describe_method(method),
    'length': getattr(method, 'length', 0),
    'labels': labels,
    'task': None,
    'tasks': [f'task_{k}' for k in range(getattr(method, 'tasks', 0))] or None,
    'step': found.step,
    'imported': {'form': found.form, 'path': found.path, 'base_model': found.base_model},
  }
