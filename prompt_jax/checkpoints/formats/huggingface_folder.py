"""A model folder as Hugging Face's transformers writes it: its files, read and written.

config.json                                  the architecture
model.safetensors, or several with an index  the weights; pytorch_model.bin with torch installed
spiece.model, or tokenizer.json              the vocabulary; bytes for ByT5
"""

import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from prompt_jax.checkpoints import json_file
from prompt_jax.checkpoints.check import expected_shapes
from prompt_jax.checkpoints.formats import safetensors_file, tokenizer_json, torch_file
from prompt_jax.checkpoints.formats.huggingface import arrays_to_huggingface, config_to_huggingface
from prompt_jax.checkpoints.leaf import Leaves
from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.data.vocabulary import (
  BYT5_EXTRA_IDS,
  ByteVocabulary,
  SentencePieceVocabulary,
  Vocabulary,
  load_vocabulary,
)
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config

CONFIG = 'config.json'
PIECES = 'spiece.model'
TOKENIZER = 'tokenizer.json'
SETTINGS = 'tokenizer_config.json'
SAFETENSORS = 'model.safetensors'
# What holds weights, the best first. An index names the files of a model in several.
WEIGHTS = (
  SAFETENSORS,
  f'{SAFETENSORS}.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
)


def weights(folder: pathlib.Path) -> Leaves:
  """The arrays by Hugging Face's names, unread.

  Raises:
    UserError: there are none, a file of several is missing, or index and files disagree.
  """
  name = next((name for name in WEIGHTS if (folder / name).is_file()), None)
  if name is None:
    raise UserError(f'{folder} holds no weights; expected one of {", ".join(WEIGHTS)}.')
  read = safetensors_file.leaves if name.startswith(SAFETENSORS) else torch_file.leaves
  path = folder / name
  return _indexed(path, read) if name.endswith('.json') else read(path)


def _indexed(index: pathlib.Path, read: Callable[[pathlib.Path], Leaves]) -> Leaves:
  """The arrays of several files, each from the file that the index names."""
  places = json_file.read(index).get('weight_map')
  if not isinstance(places, dict) or not all(isinstance(p, str) for p in places.values()):
    raise UserError(f'{index} has no "weight_map" from names to files.')
  names = sorted(set(places.values()))
  missing = [n for n in names if pathlib.Path(n).name != n or not (index.parent / n).is_file()]
  if missing:
    raise UserError(
      f'{index.parent} lacks {len(missing)} of {len(names)} files of weights that {index.name} '
      f'names: {", ".join(missing)}. Download them again.'
    )
  files = {name: read(index.parent / name) for name in names}
  wrong = [f'{array} in {file}' for array, file in places.items() if array not in files[file]]
  if wrong:
    raise UserError(
      f'{index} is not the index of these files: it names {", ".join(wrong[:3])}'
      f'{" ..." * (len(wrong) > 3)}, which {"are" if len(wrong) > 1 else "is"} not there.'
    )
  more = [f'{array} in {file}' for file in names for array in files[file] if array not in places]
  if more:
    raise UserError(f'{index} does not name {", ".join(more[:3])}, which the files hold.')
  return {array: files[file][array] for array, file in places.items()}


def vocabulary(folder: pathlib.Path) -> Vocabulary:
  """The vocabulary of a folder.

  Raises:
    UserError: it has none that can be used.
  """
  settings = json_file.read(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
  if 'ByT5' in str(settings.get('tokenizer_class', '')):
    return ByteVocabulary(settings.get('extra_ids', BYT5_EXTRA_IDS))
  if (folder / PIECES).is_file():
    return load_vocabulary(folder / PIECES)
  if (folder / TOKENIZER).is_file():
    return tokenizer_json.vocabulary(folder / TOKENIZER)
  raise UserError(
    f'{folder} has no vocabulary ({PIECES} or {TOKENIZER}); give one with --vocabulary FILE, or '
    '--vocabulary bytes for a ByT5.'
  )


def save(
  folder: pathlib.Path,
  config: T5Config,
  arrays: Iterable[tuple[str, np.ndarray]],
  dtypes: Mapping[str, np.dtype],
  words: Vocabulary,
) -> None:
  """Writes a folder that transformers loads.

  Args:
    folder: made if absent.
    config: the architecture.
    arrays: leaves of ours by path, in the order of `dtypes`; taken one at a time.
    dtypes: of each of them.
    words: the vocabulary.
  """
  about = config_to_huggingface(config)
  kinds = {dtype.name for dtype in dtypes.values()}
  about['dtype'] = kinds.pop() if len(kinds) == 1 else 'float32'
  shapes = expected_shapes(config)
  layout = {}
  for path, dtype in dtypes.items():
    empty = np.broadcast_to(np.zeros((), dtype), shapes[path])
    for name, array in arrays_to_huggingface(config, path, empty):
      layout[name] = (array.shape, dtype)
  theirs = (pair for path, x in arrays for pair in arrays_to_huggingface(config, path, x))
  safetensors_file.write(folder / SAFETENSORS, layout, theirs, {'format': 'pt'})
  json_file.write(folder / CONFIG, about)
  json_file.write(folder / SETTINGS, _settings(words))
  if isinstance(words, SentencePieceVocabulary):
    write_atomically(folder / PIECES, pathlib.Path(words.path).read_bytes())


def _settings(words: Vocabulary) -> dict[str, Any]:
  kind = 'T5Tokenizer' if isinstance(words, SentencePieceVocabulary) else 'ByT5Tokenizer'
  return {
    'tokenizer_class': kind,
    'extra_ids': words.extra_ids,
    'pad_token': '<pad>',
    'eos_token': '</s>',
    'unk_token': '<unk>',
  }
