"""A model as a folder that Hugging Face's transformers opens, weights and vocabulary."""

import pathlib
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from prompt_jax.checkpoints import leaf, on_disk
from prompt_jax.checkpoints.formats.huggingface import arrays_to_huggingface, config_to_huggingface
from prompt_jax.checkpoints.formats.huggingface_folder import CONFIG, SAFETENSORS
from prompt_jax.checkpoints.formats.huggingface_tokens import JSON, PIECES, SETTINGS
from prompt_jax.checkpoints.leaf import expected_shapes
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.data.vocabulary import SentencePieceVocabulary, Vocabulary
from prompt_jax.export.tokenizer import bytes_json, tokenizer_json
from prompt_jax.models.t5.config import T5Config

# What a model of this kind reads; a PreTrainedTokenizerFast gives types of tokens too.
READ = {'model_input_names': ['input_ids', 'attention_mask']}
SPECIALS = {'pad_token': '<pad>', 'eos_token': '</s>', 'unk_token': '<unk>'}


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
  save_weights(folder, config, arrays, dtypes)
  on_disk.write_json(folder / SETTINGS, _write_tokens(folder, words))


def save_weights(
  folder: pathlib.Path,
  config: T5Config,
  arrays: Iterable[tuple[str, np.ndarray]],
  dtypes: Mapping[str, np.dtype],
) -> None:
  """Writes the weights and the architecture; arguments as in `save`."""
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
  leaf.write_safetensors(folder / SAFETENSORS, layout, theirs, {'format': 'pt'})
  on_disk.write_json(folder / CONFIG, about)


def _write_tokens(folder: pathlib.Path, words: Vocabulary) -> dict[str, Any]:
  """Writes the vocabulary; returns its tokenizer_config.json."""
  settings = {'extra_ids': words.extra_ids, **SPECIALS}
  if not isinstance(words, SentencePieceVocabulary):
    on_disk.write_json(folder / JSON, bytes_json())
    return {'tokenizer_class': 'ByT5Tokenizer', **settings}
  write_atomically(folder / PIECES, pathlib.Path(words.path).read_bytes())
  made = tokenizer_json(words)
  if made is None:
    warnings.warn(
      f'{words.path} is not of type Unigram: transformers cuts text otherwise', stacklevel=2
    )
    return {'tokenizer_class': 'T5Tokenizer', **settings}
  on_disk.write_json(folder / JSON, made)
  # T5Tokenizer would build another tokenizer from the file, without pieces for bytes.
  return {'tokenizer_class': 'PreTrainedTokenizerFast', **READ, **settings}
