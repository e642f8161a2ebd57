"""A frozen model on disk: a folder with its architecture, weights and vocabulary.

  config.json          {"format": "prompt_jax", "name": ..., "architecture": {T5Config fields}}
  model.safetensors    the tree of `models.t5.T5`, names joined with "/"
  sentencepiece.model  the vocabulary (absent for byte models)
  card.md              where it comes from (optional)

The model named "embedded" is such a folder inside the package.
"""

import dataclasses
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from prompt_jax.checkpoints.check import check_params
from prompt_jax.checkpoints.fingerprint import fingerprint
from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.data.vocabulary import (
  FILE_NAME,
  ByteVocabulary,
  SentencePieceVocabulary,
  Vocabulary,
)
from prompt_jax.errors import UserError
from prompt_jax.models.config import T5Config

EMBEDDED = 'embedded'
CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'


@dataclasses.dataclass(frozen=True)
class Backbone:
  """A model to be prompted.

  Attributes:
    name: for people; a prompt file records it.
    config: the architecture.
    params: its tree, leaves of `config.dtype`.
    vocabulary: of its token ids.
    fingerprint: of the weights as stored, whatever dtype they were cast to.
  """

  name: str
  config: T5Config
  params: dict[str, Any]
  vocabulary: Vocabulary
  fingerprint: str


def embedded_folder() -> pathlib.Path:
  """The model that every installation has."""
  return pathlib.Path(__file__).parent.parent / 'embedded'


def load_backbone(name: str, dtype: str | None = None) -> Backbone:
  """Reads a model folder, one leaf at a time, cast as it is read.

  Args:
    name: a folder, or "embedded".
    dtype: compute and storage dtype; None is float32 on CPU and bfloat16 elsewhere.

  Raises:
    UserError: the folder or a file in it is missing, damaged, or does not fit the architecture.
  """
  folder = _folder(name)
  about = read_config(folder)
  dtype = dtype or ('float32' if jax.default_backend() == 'cpu' else 'bfloat16')
  config = dataclasses.replace(_architecture(folder, about), dtype=dtype)
  flat, marks = {}, {}
  for path, leaf in _leaves(folder / WEIGHTS):
    marks[path] = leaf
    # A cast from bfloat16 to float32 is exact, so the fingerprint may come after it.
    flat[path] = np.asarray(leaf, dtype=np.float32) if dtype == 'float32' else leaf
  params = traverse_util.unflatten_dict(flat, sep='/')
  check_params(config, params)
  mark = fingerprint(traverse_util.unflatten_dict(marks, sep='/'))
  if dtype != 'float32':
    params = jax.tree.map(lambda x: np.asarray(x).astype(jax.numpy.dtype(dtype)), params)
  vocabulary = _vocabulary(folder, about)
  if vocabulary.size > config.vocab_size:
    raise UserError(
      f'{folder}: the vocabulary has {vocabulary.size} ids, the embedding table '
      f'{config.vocab_size} rows; {FILE_NAME} belongs to another model'
    )
  return Backbone(about.get('name') or folder.name, config, params, vocabulary, mark)


def save_backbone(
  folder: str | os.PathLike,
  *,
  name: str,
  config: T5Config,
  params: dict[str, Any],
  vocabulary: Vocabulary,
  dtype: str = 'float32',
) -> None:
  """Writes a model folder that `load_backbone` reads.

  Args:
    folder: made if absent; an older model in it is replaced.
    name: for people.
    config: the architecture.
    params: its tree.
    vocabulary: copied into the folder.
    dtype: of the stored weights.

  Raises:
    UserError: the folder cannot be written, or the tree is not that of the architecture.
  """
  check_params(config, params)
  folder = pathlib.Path(folder)
  flat = traverse_util.flatten_dict(params, sep='/')
  kind = jax.numpy.dtype(dtype)
  tensors = {path: np.ascontiguousarray(np.asarray(x).astype(kind)) for path, x in flat.items()}
  about: dict[str, Any] = {'format': 'prompt_jax', 'name': name}
  about['architecture'] = dataclasses.asdict(config)
  about['vocabulary'] = {'extra_ids': vocabulary.extra_ids}
  if isinstance(vocabulary, SentencePieceVocabulary):
    about['vocabulary']['kind'] = 'sentencepiece'
    write_atomically(folder / FILE_NAME, pathlib.Path(vocabulary.path).read_bytes())
  else:
    about['vocabulary']['kind'] = 'bytes'
  write_atomically(folder / WEIGHTS, safetensors.numpy.save(tensors))
  write_atomically(folder / CONFIG, (json.dumps(about, indent=2) + '\n').encode())


def vocabulary_of(name: str) -> Vocabulary:
  """The vocabulary of a model, without its weights; `name` as in `load_backbone`."""
  folder = _folder(name)
  return _vocabulary(folder, read_config(folder))


def _folder(name: str) -> pathlib.Path:
  folder = embedded_folder() if name == EMBEDDED else pathlib.Path(name)
  if not os.path.isdir(folder):
    raise UserError(
      f'No model {name!r}: there is no such folder. Give a folder that holds {CONFIG}, {WEIGHTS} '
      f'and {FILE_NAME}, or "{EMBEDDED}" for the model inside the package.'
    )
  return folder


def read_config(folder: pathlib.Path) -> dict[str, Any]:
  """The JSON object of a model folder, checked to be one of ours."""
  path = folder / CONFIG
  if not path.is_file():
    raise UserError(f'{folder} is no model folder: it has no {CONFIG}')
  try:
    about = json.loads(path.read_text('utf-8'))
  except ValueError as error:
    raise UserError(f'{path} is not JSON: {error}') from None
  if not isinstance(about, dict) or about.get('format') != 'prompt_jax':
    raise UserError(f'{path} does not say "format": "prompt_jax": this is another kind of model')
  return about


def _architecture(folder: pathlib.Path, about: dict[str, Any]) -> T5Config:
  try:
    return T5Config(**about['architecture'])
  except (KeyError, TypeError, UserError) as error:
    raise UserError(f'{folder / CONFIG}: no valid architecture: {error}') from None


def _leaves(path: pathlib.Path):
  """(name, array) of a safetensors file, one at a time."""
  if not path.is_file():
    raise UserError(f'{path.parent} has no {path.name}: the weights are missing')
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      for name in file.keys():  # noqa: SIM118
        yield name, file.get_tensor(name)
  except (safetensors.SafetensorError, OSError, ValueError) as error:
    raise UserError(f'{path} is damaged or no safetensors file: {error}') from None


def _vocabulary(folder: pathlib.Path, about: dict[str, Any]) -> Vocabulary:
  settings = about.get('vocabulary', {})
  if settings.get('kind') == 'bytes':
    return ByteVocabulary(extra_ids=settings['extra_ids'])
  return SentencePieceVocabulary(folder / FILE_NAME, extra_ids=settings.get('extra_ids', 100))
