"""A model folder of ours: a frozen model's architecture, weights and vocabulary.

config.json          {"format": "prompt_jax", "name": ..., "family": "t5" or "causal",
                      "architecture": {fields of its configuration},
                      "crc32": {array: checksum of its bytes},
                      "tuning": the prompt method that suits it (optional), see `advice`}
model.safetensors    the tree of `models.module.module`, names joined with "/"
sentencepiece.model  the vocabulary (absent for byte models), or tokenizer.json
card.md              where it comes from (optional)
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from prompt_jax.causal_formats import tokenizer
from prompt_jax.checkpoints import leaf, on_disk
from prompt_jax.checkpoints.leaf import Leaves, compare, expected_shapes
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.data.vocabulary import (
  FILE_NAME,
  ByteVocabulary,
  SentencePieceVocabulary,
  Vocabulary,
)
from prompt_jax.errors import UserError, unknown
from prompt_jax.models.module import FAMILIES, Config

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
FORMAT = 'prompt_jax'
KINDS = ('sentencepiece', 'bytes', 'tokenizer')


def architecture(folder: pathlib.Path, about: Mapping[str, Any]) -> Config:
  """The architecture that a folder's config.json tells.

  Raises:
    UserError: it tells none, or is not one of ours.
  """
  if about.get('format') != FORMAT:
    raise UserError(
      f'{folder / CONFIG} does not say "format": "{FORMAT}": this is another kind of model'
    )
  family = about.get('family', 't5')
  if family not in FAMILIES:
    raise unknown(f'family in {folder / CONFIG}', str(family), FAMILIES)
  try:
    return FAMILIES[family](**about['architecture'])
  except (KeyError, TypeError, ValueError, UserError) as error:
    raise UserError(f'{folder / CONFIG}: no valid architecture: {error}') from None


def advice(folder: pathlib.Path, about: Mapping[str, Any]) -> dict[str, Any]:
  """The prompt method that a config.json recommends; {} if it recommends none.

  {"prompt": a file of gin/prompts, "length": rows, "learning_rate": X}; the last two are optional.

  Raises:
    UserError: it says something else.
  """
  found = about.get('tuning', {}) if about.get('format') == FORMAT else {}
  kinds = {'prompt': str, 'length': int, 'learning_rate': float}
  if not isinstance(found, dict) or (found and 'prompt' not in found):
    raise UserError(f'{folder / CONFIG}: "tuning" is {found!r}; expected {{"prompt": METHOD, ...}}')
  for name, value in found.items():
    if name not in kinds:
      raise unknown(f'setting of "tuning" in {folder / CONFIG}', name, kinds)
    if not isinstance(value, kinds[name]) or isinstance(value, bool):
      raise UserError(f'{folder / CONFIG}: {name} of "tuning" is {value!r}')
  return dict(found)


def leaves(folder: pathlib.Path, config: Config, about: Mapping[str, Any]) -> Leaves:
  """The parameters by path, unread; those that config.json has a checksum of are held to it.

  Raises:
    UserError: the file is missing or damaged, or has another tree; both are listed.
  """
  sums = about.get('crc32') or {}
  if not isinstance(sums, dict) or not all(isinstance(x, int) for x in sums.values()):
    raise UserError(f'{folder / CONFIG}: crc32 holds no checksums by name. Copy the folder again.')
  found = leaf.safetensors_leaves(folder / WEIGHTS, sums)
  shapes = {path: leaf.shape for path, leaf in found.items()}
  compare(expected_shapes(config), shapes, f'{folder / WEIGHTS}: the arrays')
  return found


def vocabulary(folder: pathlib.Path, about: Mapping[str, Any]) -> Vocabulary:
  """The vocabulary of a folder, as its config.json describes it.

  Raises:
    UserError: it does not, or the file is missing or damaged.
  """
  settings = about.get('vocabulary')
  settings = settings if isinstance(settings, dict) else {}
  kind, count = settings.get('kind'), settings.get('extra_ids')
  if kind == 'tokenizer':
    return _checked(folder, tokenizer.FILE_NAME, settings, _tokenizer(folder, settings))
  if kind not in KINDS or isinstance(count, bool) or not isinstance(count, int) or count < 0:
    raise UserError(
      f'{folder / CONFIG}: vocabulary is {about.get("vocabulary")!r}; expected its kind '
      f'({" or ".join(KINDS)}) and extra_ids, the number of sentinels to add.'
    )
  if kind == 'bytes':
    return ByteVocabulary(count)
  words = SentencePieceVocabulary(folder / FILE_NAME, count)
  return _checked(folder, FILE_NAME, settings, words)


def _tokenizer(folder: pathlib.Path, settings: Mapping[str, Any]) -> tokenizer.TokenizerVocabulary:
  pad, eos = settings.get('pad'), settings.get('eos')
  if type(pad) is not int or type(eos) is not int:
    raise UserError(
      f'{folder / CONFIG}: pad and eos of its vocabulary are {pad!r} and {eos!r}; expected ids.'
    )
  path = folder / tokenizer.FILE_NAME
  return tokenizer.TokenizerVocabulary(tokenizer.read(path), str(path), pad, eos)


def _checked(
  folder: pathlib.Path, name: str, settings: Mapping[str, Any], words: Vocabulary
) -> Vocabulary:
  if settings.get('sha256') not in (None, words.sha256):
    raise UserError(
      f'{folder / name} is not the vocabulary that {CONFIG} tells (sha256): it was changed '
      'since the folder was written. Copy the folder again.'
    )
  return words


def save(
  folder: pathlib.Path,
  name: str,
  config: Config,
  arrays: Iterable[tuple[str, np.ndarray]],
  dtypes: Mapping[str, np.dtype],
  words: Vocabulary,
  tuning: Mapping[str, Any] | None = None,
) -> None:
  """Writes a folder; config.json comes last, so that a folder that has it is whole.

  Args:
    folder: made if absent; an older model in it is replaced.
    name: for people.
    config: the architecture.
    arrays: its leaves by path, in the order of `dtypes`; taken one at a time.
    dtypes: of each of them.
    words: the vocabulary, copied into the folder.
    tuning: what `advice` is to give.
  """
  shapes = expected_shapes(config)
  family = next(name for name, kind in FAMILIES.items() if isinstance(config, kind))
  about: dict[str, Any] = {'format': FORMAT, 'name': name, 'family': family}
  about['architecture'] = dataclasses.asdict(config)
  about |= {'tuning': dict(tuning)} if tuning else {}
  about['vocabulary'] = {'extra_ids': words.extra_ids}
  if isinstance(words, SentencePieceVocabulary):
    about['vocabulary'] |= {'kind': 'sentencepiece', 'sha256': words.sha256}
    write_atomically(folder / FILE_NAME, pathlib.Path(words.path).read_bytes())
  elif isinstance(words, tokenizer.TokenizerVocabulary):
    ids = {'pad': words.pad, 'eos': words.eos}
    about['vocabulary'] |= {'kind': 'tokenizer', **ids, 'sha256': words.sha256}
    write_atomically(folder / tokenizer.FILE_NAME, words.raw)
  else:
    about['vocabulary']['kind'] = 'bytes'
  layout = {path: (shapes[path], dtype) for path, dtype in dtypes.items()}
  about['crc32'] = leaf.write_safetensors(folder / WEIGHTS, layout, arrays)
  on_disk.write_json(folder / CONFIG, about)
