"""A model folder as Hugging Face's transformers writes it: its architecture and its weights.

config.json                                  the architecture
generation_config.json                       how a text begins and ends (optional)
model.safetensors, or several with an index  the weights; pytorch_model.bin with torch installed
spiece.model, or tokenizer.json              the vocabulary, see `huggingface_tokens`
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from prompt_jax.checkpoints import leaf, on_disk
from prompt_jax.checkpoints.formats import torch_file
from prompt_jax.checkpoints.formats.fields import check
from prompt_jax.checkpoints.formats.huggingface import check_start, config_from_huggingface
from prompt_jax.checkpoints.formats.huggingface_fields import GENERATION
from prompt_jax.checkpoints.leaf import Leaves
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config

CONFIG = 'config.json'
GENERATION_CONFIG = 'generation_config.json'
SAFETENSORS = 'model.safetensors'
# What holds weights, the best first. An index names the files of a model in several.
WEIGHTS = (
  SAFETENSORS,
  f'{SAFETENSORS}.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
)


def architecture(folder: pathlib.Path, about: Mapping[str, Any]) -> T5Config:
  """The architecture, of which nothing is read but the settings.

  Args:
    folder: of the model.
    about: its config.json.

  Raises:
    UserError: another model, or a setting that no T5 of this package has; it is named.
  """
  config = config_from_huggingface(about, str(folder / CONFIG))
  path = folder / GENERATION_CONFIG
  said = on_disk.read_json(path) if path.is_file() else {}
  check(said, GENERATION, str(path))
  both = {**about, **{name: value for name, value in said.items() if value is not None}}
  check_start(both, str(folder / CONFIG))
  return config


def weights(folder: pathlib.Path) -> Leaves:
  """The arrays by Hugging Face's names, unread.

  Raises:
    UserError: there are none, a file of several is missing, or index and files disagree.
  """
  name = next((name for name in WEIGHTS if (folder / name).is_file()), None)
  if name is None:
    raise UserError(f'{folder} holds no weights; expected one of {", ".join(WEIGHTS)}.')
  read = leaf.safetensors_leaves if name.startswith(SAFETENSORS) else torch_file.leaves
  path = folder / name
  return _indexed(path, read) if name.endswith('.json') else read(path)


def _indexed(index: pathlib.Path, read: Callable[[pathlib.Path], Leaves]) -> Leaves:
  """The arrays of several files, each from the file that the index names."""
  places = on_disk.read_json(index).get('weight_map')
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
