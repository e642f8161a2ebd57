"""The vocabulary of a Hugging Face folder, from all of its files that say something of tokens.

spiece.model             the pieces; the sentinels of T5's are not among them
tokenizer.json           the same, in the form of Hugging Face's tokenizers
tokenizer_config.json    kind of tokenizer, number of sentinels, special and added tokens
special_tokens_map.json  special tokens again
added_tokens.json        tokens that were added, with their ids

Sentinels are added as seqio and transformers do. A token that was added to the vocabulary and is
none of these is refused: a SentencePiece model would write it in pieces.
"""

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.formats import tokenizer_json
from prompt_jax.checkpoints.formats.fields import check, shown
from prompt_jax.checkpoints.formats.huggingface_fields import SPECIAL_TOKENS_MAP, TOKENIZER
from prompt_jax.data.vocabulary import (
  BYT5_EXTRA_IDS,
  ByteVocabulary,
  SentencePieceVocabulary,
  load_vocabulary,
)
from prompt_jax.errors import UserError

PIECES = 'spiece.model'
JSON = 'tokenizer.json'
SETTINGS = 'tokenizer_config.json'
SPECIALS = 'special_tokens_map.json'
ADDED = 'added_tokens.json'
_BYTES = ('ByT5Tokenizer',)
_CLASSES = ('T5Tokenizer', 'MT5Tokenizer', 'PreTrainedTokenizer', 'TokenizersBackend')
_SENTINEL = re.compile(r'<extra_id_\d+>')
# The id that each must have. The others stand for nothing in a T5's input.
_FIXED = {'pad_token': 0, 'eos_token': 1, 'unk_token': 2}
_OTHERS = ('bos_token', 'sep_token', 'cls_token', 'mask_token')
Said = Iterator[tuple[str, int | None, str]]
Known = SentencePieceVocabulary | ByteVocabulary


def vocabulary(folder: pathlib.Path, about: Mapping[str, Any]) -> Known:
  """The vocabulary of a folder.

  Args:
    folder: of the model.
    about: its config.json.

  Raises:
    UserError: it has none that can be used, or says something of it that cannot be done here.
  """
  read = lambda name: on_disk.read_json(folder / name) if (folder / name).is_file() else {}
  settings, specials, added = read(SETTINGS), read(SPECIALS), read(ADDED)
  check(settings, TOKENIZER, str(folder / SETTINGS))
  check(specials, SPECIAL_TOKENS_MAP, str(folder / SPECIALS))
  for token, number in added.items():
    _check_id(number, token, folder / ADDED)
  said = [*_said(folder / SETTINGS, settings), *_said(folder / SPECIALS, specials)]
  said += [(token, number, ADDED) for token, number in added.items()]
  kind = settings.get('tokenizer_class') or about.get('tokenizer_class') or 'T5Tokenizer'
  kind = str(kind).removesuffix('Fast')
  if kind not in (*_BYTES, *_CLASSES):
    raise UserError(
      f'{folder}: the tokenizer is a {kind}; expected one of {", ".join((*_CLASSES, *_BYTES))}.'
    )
  # Lists name all of them; files with ids may name some.
  named = len({t for t, number, _ in said if number is None and _SENTINEL.fullmatch(t)})
  count = _check_count(folder, settings, named)
  words: Known
  if kind in _BYTES:
    # transformers writes extra_ids 0 for the tokens that it lists.
    words = ByteVocabulary(named or (BYT5_EXTRA_IDS if count is None else count))
  elif (folder / PIECES).is_file():
    words = load_vocabulary(folder / PIECES, count)
    if count is None and words.extra_ids and named not in (0, words.extra_ids):
      words = load_vocabulary(folder / PIECES, named)
  elif (folder / JSON).is_file():
    words = tokenizer_json.vocabulary(folder / JSON)
    if count not in (None, words.extra_ids):
      raise UserError(
        f'{folder}: {SETTINGS} says {count} sentinels (extra_ids), {JSON} has {words.extra_ids}.'
      )
  else:
    raise UserError(
      f'{folder} has no vocabulary ({PIECES} or {JSON}): give one, or "bytes" for a ByT5.',
      parameters=['vocabulary'],
    )
  if kind not in _BYTES and (folder / JSON).is_file():
    pieces, more = tokenizer_json.tokens(folder / JSON)
    _check_pieces(folder, words, pieces)
    said += [(token, number, JSON) for token, number in more]
  if settings.get('unk_id') not in (None, words.unk_id):
    raise UserError(
      f'{folder / SETTINGS}: unk_id is {settings["unk_id"]!r}; the vocabulary has {words.unk_id}.'
    )
  _check_tokens(folder, words, said)
  return words


def _said(path: pathlib.Path, settings: Mapping[str, Any]) -> Said:
  """(token, its id if that is told, the file) of every token that a file of settings names."""
  for name in (*_FIXED, *_OTHERS):
    if settings.get(name) is not None:
      yield _content(settings[name], name, path), _FIXED.get(name), path.name
  for name in ('additional_special_tokens', 'extra_special_tokens'):
    tokens = settings.get(name) or []
    tokens = list(tokens.values()) if isinstance(tokens, dict) else tokens
    if not isinstance(tokens, list):
      raise UserError(f'{path}: {name} is {shown(tokens)}; expected a list of tokens.')
    for token in tokens:
      yield _content(token, name, path), None, path.name
  decoder = settings.get('added_tokens_decoder') or {}
  if not isinstance(decoder, dict) or not all(str(key).isdecimal() for key in decoder):
    raise UserError(f'{path}: added_tokens_decoder is {shown(decoder)}; expected tokens by id.')
  for number, token in decoder.items():
    yield _content(token, 'added_tokens_decoder', path), int(number), path.name


def _content(token: Any, name: str, path: pathlib.Path) -> str:
  """A token that is written as text, or with how it is found in text."""
  found = token.get('content') if isinstance(token, dict) else token
  if not isinstance(found, str):
    raise UserError(f'{path}: {name} is {shown(token)}; expected a token.')
  return found


def _check_id(number: Any, token: str, path: pathlib.Path) -> None:
  if isinstance(number, bool) or not isinstance(number, int) or number < 0:
    raise UserError(f'{path}: the id of {token!r} is {shown(number)}; expected a whole number.')


def _check_count(folder: pathlib.Path, settings: Mapping[str, Any], named: int) -> int | None:
  """How many sentinels the settings say are to be added, if they do."""
  count = settings.get('extra_ids')
  if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
    raise UserError(f'{folder / SETTINGS}: extra_ids is {shown(count)}; expected a whole number.')
  if count and named and named != count:
    raise UserError(
      f'{folder}: extra_ids is {count}, and {named} sentinels <extra_id_...> are named. Give the '
      'folder as it was published.'
    )
  return count


def _check_pieces(folder: pathlib.Path, words: Known, pieces: list[str]) -> None:
  """Refuses two files of a vocabulary that are not of one vocabulary."""
  plain = lambda piece: piece.removeprefix('▁') if piece.endswith('>') else piece
  ours = [words.pieces(i) for i in range(words.size)]
  both = enumerate(zip(pieces, ours, strict=False))
  wrong = next((i for i, (a, b) in both if plain(a) != plain(b)), None)
  if wrong is not None or len(pieces) > len(ours):
    at = min(len(pieces), len(ours)) if wrong is None else wrong
    what = [repr(found[at]) if at < len(found) else 'nothing' for found in (pieces, ours)]
    raise UserError(
      f'{folder}: {JSON} and {PIECES} are of two vocabularies: id {at} is {what[0]} and {what[1]}. '
      'Give one of them as the vocabulary, or remove the wrong one.',
      parameters=['vocabulary'],
    )


def _check_tokens(
  folder: pathlib.Path, words: Known, said: list[tuple[str, int | None, str]]
) -> None:
  """Refuses tokens that the vocabulary has not, or has under another id."""
  strange: dict[str, tuple[int | None, str]] = {}
  for token, number, name in said:
    ids = words.ids_of(token)
    if not ids:
      strange.setdefault(token, (number, name))
    elif number is not None and number not in ids:
      raise UserError(
        f'{folder / name} says that {token!r} has id {number}; in the vocabulary it has {ids[0]}.'
      )
  if not strange:
    return
  shown_ones = [
    repr(token) + ('' if number is None else f' ({number})')
    for token, (number, _) in list(strange.items())[:5]
  ]
  more = f' and {len(strange) - 5} more' if len(strange) > 5 else ''
  files = ', '.join(sorted({name for _, name in strange.values()}))
  raise UserError(
    f'{folder}: {len(strange)} tokens were added to the vocabulary: {", ".join(shown_ones)}{more} '
    f'({files}). The SentencePiece model does not know them, and would write them in pieces. To '
    'use the model without them, give its SentencePiece model and the number of its sentinels as '
    f'the vocabulary, {folder / PIECES}:{words.extra_ids}.',
    ['vocabulary'],
  )
