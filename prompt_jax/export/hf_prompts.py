"""A model and prompts as one folder of transformers, in which `<name> text` asks a prompt.

The rows of the prompts are appended to the embedding table, see `prompt_ids`. No id of them can be
written: `generate` suppresses them, and where the logits have a matrix of their own their columns
are zero. What remains is normalised again, as if the columns were not there; without that the
scores of beams and the probabilities of sampling would count them.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.formats.huggingface import config_to_huggingface
from prompt_jax.checkpoints.formats.huggingface_folder import GENERATION_CONFIG
from prompt_jax.checkpoints.formats.huggingface_tokens import JSON, SETTINGS
from prompt_jax.data.vocabulary import SentencePieceVocabulary, Vocabulary
from prompt_jax.errors import UserError
from prompt_jax.export import huggingface
from prompt_jax.export.model import Model
from prompt_jax.export.prompt_ids import PromptIds
from prompt_jax.export.tokenizer import bytes_json, tokenizer_json, with_prompts

TABLE, LOGITS = 'token_embedder/embedding', 'decoder/logits_dense/kernel'
# The pattern of a prompt's word in a text, by the place of its rows.
PATTERNS = {'before': '^{} ?', 'before_eos': ' ?{}$'}


def check(model: Model, prompts: Sequence[PromptIds]) -> None:
  """Refuses what a tokenizer of transformers cannot do.

  Raises:
    UserError: a prompt whose place no word in a text can say, or a vocabulary that transformers
      cuts otherwise.
  """
  for prompt in prompts:
    if prompt.placement not in PATTERNS:
      raise UserError(
        f'The rows of {prompt.name!r} go {prompt.placement!r}, a place among the tokens of a text '
        "that its words cannot say to 'hf'. The format 'ctranslate2' takes them: there the caller "
        'places the ids.',
        ['to'],
      )
  _tokenizer(model.vocabulary)
  config_to_huggingface(model.t5)  # refuses what Hugging Face does not have


def save(folder: pathlib.Path, model: Model, prompts: Sequence[PromptIds]) -> None:
  """Writes the folder.

  Args:
    folder: made if absent.
    model: the frozen model, unread.
    prompts: with ids behind its table.

  Raises:
    UserError: see `check`; or the folder cannot be written.
  """
  new = np.concatenate([p.rows for p in prompts])
  rows, count = model.config.vocab_size, len(new)
  dtypes = {**model.dtypes, TABLE: np.dtype(np.float32)}  # the rows keep their bits
  config = dataclasses.replace(model.t5, vocab_size=rows + count)

  def arrays() -> Iterator[tuple[str, np.ndarray]]:
    for path, array in model.arrays():
      if path == TABLE:
        array = np.concatenate([array.astype(np.float32), new])
      elif path == LOGITS:
        array = np.concatenate([array, np.zeros((len(array), count), array.dtype)], axis=1)
      yield path, array

  huggingface.save_weights(folder, config, arrays(), dtypes)
  on_disk.write_json(folder / GENERATION_CONFIG, _generation(rows, count, prompts))
  patterns = {PATTERNS[p.placement].format(_escaped(p.word)): p.tokens for p in prompts}
  on_disk.write_json(folder / JSON, with_prompts(_tokenizer(model.vocabulary), rows, patterns))
  # Any other class would build another tokenizer from the file, without what was added.
  settings = {
    'tokenizer_class': 'PreTrainedTokenizerFast',
    **huggingface.READ,
    **huggingface.SPECIALS,
  }
  on_disk.write_json(folder / SETTINGS, settings)


def _generation(rows: int, count: int, prompts: Sequence[PromptIds]) -> dict[str, Any]:
  return {
    'decoder_start_token_id': 0,
    'eos_token_id': 1,
    'pad_token_id': 0,
    'max_new_tokens': max(p.lengths.targets for p in prompts),
    'suppress_tokens': list(range(rows, rows + count)),
    'renormalize_logits': True,
  }


def _tokenizer(words: Vocabulary) -> dict[str, Any]:
  if not isinstance(words, SentencePieceVocabulary):
    return bytes_json()
  made = tokenizer_json(words)
  if made is None:
    raise UserError(
      f'{words.path} is not of type Unigram: transformers cuts text otherwise. The format '
      "'ctranslate2' takes the ids of SentencePiece itself.",
      ['to'],
    )
  return made


def _escaped(word: str) -> str:
  return word.replace('.', r'\.')
