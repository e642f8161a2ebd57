"""A SentencePiece model from the tokenizer.json of a T5, where a folder has no other vocabulary.

The file of Hugging Face's tokenizers holds the pieces with their scores and SentencePiece's own
table of normalisation, so the model can be had back whole; which pieces were ends and sentinels
follows from their names. A tokenizer of any other make is refused.
"""

import base64
import binascii
import hashlib
import json
import os
import pathlib
import re
import struct
from typing import Any

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.data.vocabulary import SentencePieceVocabulary
from prompt_jax.errors import UserError

REMEDY = 'Give the SentencePiece model that it was made from as the vocabulary.'
OWN = ['vocabulary']  # the parameter of the remedy
# SentencePiece's kinds of pieces.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
_SENTINEL = re.compile(r'▁?<extra_id_\d+>')
_BYTE = re.compile(r'<0x[0-9A-F]{2}>')
# Runs of spaces, and those at the ends, which SentencePiece leaves out in any case.
SPACES, OUTER = {'Regex': ' {2,}'}, {'Regex': '^ +| +$'}


def vocabulary(path: pathlib.Path) -> SentencePieceVocabulary:
  """The vocabulary of a tokenizer.json; its SentencePiece model is kept in the user's cache.

  Raises:
    UserError: the file is damaged, or no SentencePiece model does what it says.
  """
  model, sentinels = sentencepiece_model(path)
  cache = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache')
  copy = cache / 'prompt_jax' / 'vocabularies' / f'{hashlib.sha256(model).hexdigest()[:16]}.model'
  if not copy.is_file() or copy.read_bytes() != model:
    write_atomically(copy, model)
  return SentencePieceVocabulary(copy, sentinels)


def sentencepiece_model(path: pathlib.Path) -> tuple[bytes, int]:
  """(the bytes of a `.model` file, the number of sentinels that are to be added to it).

  Raises:
    UserError: see `vocabulary`.
  """
  try:
    about = json.loads(path.read_text('utf-8'))
    kind = about['model'].get('type', 'Unigram')
    pieces = _pieces(about)
    unknown, fallback = about['model']['unk_id'], about['model'].get('byte_fallback', False)
    special = {t['content'] for t in about.get('added_tokens', []) if t.get('special')}
    charsmap = _charsmap(path, about.get('normalizer'))
    _check_words(path, about.get('pre_tokenizer'))
    _check_end(path, about.get('post_processor'))
    sampled = {name for name in ('alpha', 'nbest_size', 'dropout') if about['model'].get(name)}
    spec = _varint(40, unknown) + _varint(35, int(fallback))
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
    raise UserError(f"{path} is damaged or no T5's tokenizer ({e!r}). {REMEDY}", OWN) from None
  if kind != 'Unigram' or 'decoder' not in about:
    raise UserError(f'{path} holds a tokenizer of type {kind}; expected Unigram. {REMEDY}', OWN)
  if sampled:
    raise UserError(f'{path} draws pieces at random ({", ".join(sorted(sampled))}). {REMEDY}', OWN)
  # Sentinels without a space before them were added by Hugging Face; ours are added when loading.
  real = len(pieces)
  while real and pieces[real - 1][0] == f'<extra_id_{len(pieces) - real}>':
    real -= 1
  if real and re.fullmatch(r'<extra_id_\d+>', pieces[real - 1][0]):
    raise UserError(
      f'{path}: sentinels do not count down to <extra_id_0> at the last id; there is '
      f'{pieces[real - 1][0]} at {real - 1}. {REMEDY}',
      OWN,
    )
  spec += _varint(3, 1) + _varint(4, real) + _varint(41, -1) + _varint(42, 1) + _varint(43, 0)
  model = bytearray()
  for i, (piece, score) in enumerate(pieces[:real]):
    model += _bytes(1, _piece(piece, score, _kind(piece, i == unknown, special, fallback)))
  model += _bytes(2, spec)
  normalizer = _bytes(1, b'from tokenizer.json') + _bytes(2, charsmap)
  model += _bytes(3, normalizer + _varint(3, 1) + _varint(4, 1) + _varint(5, 1))
  return bytes(model), len(pieces) - real


def tokens(path: pathlib.Path) -> tuple[list[str], list[tuple[str, int]]]:
  """The pieces in the order of their ids, and the tokens that are found in text before any.

  Raises:
    UserError: the file is damaged.
  """
  try:
    about = json.loads(path.read_text('utf-8'))
    added = [(str(t['content']), int(t['id'])) for t in about.get('added_tokens', [])]
    return [piece for piece, _ in _pieces(about)], added
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as e:
    raise UserError(f"{path} is damaged or no T5's tokenizer ({e!r}). {REMEDY}", OWN) from None


def _pieces(about: Any) -> list[tuple[str, float]]:
  return [(str(piece), float(score)) for piece, score in about['model']['vocab']]


def _kind(piece: str, unknown: bool, special: set[str], fallback: bool) -> int:
  if unknown:
    return UNKNOWN
  if _SENTINEL.fullmatch(piece):
    return USER_DEFINED
  if fallback and _BYTE.fullmatch(piece):
    return BYTE
  return CONTROL if piece in special else NORMAL


def _charsmap(path: pathlib.Path, normalizer: Any) -> bytes:
  """SentencePiece's table of normalisation; runs of spaces become one in any case."""
  steps = [normalizer] if normalizer else []
  if steps and normalizer.get('type') == 'Sequence':
    steps = normalizer.get('normalizers', [])
  table = b''
  for step in steps:
    if step.get('type') == 'Precompiled':
      try:
        table = base64.b64decode(step['precompiled_charsmap'], validate=True)
      except (KeyError, TypeError, binascii.Error) as e:
        raise UserError(f'{path}: no table of normalisation ({e!r}). {REMEDY}', OWN) from None
    # The table composes as NFC does.
    elif step.get('type') != 'NFC' and not (
      step.get('type') == 'Replace' and step.get('pattern') in (SPACES, OUTER)
    ):
      raise UserError(
        f'{path}: the normaliser {step.get("type")!r} is none of SentencePiece. {REMEDY}', OWN
      )
  return table


def _check_words(path: pathlib.Path, pre_tokenizer: Any) -> None:
  """Words must begin with "▁", the first one too, as SentencePiece has it."""
  steps = [pre_tokenizer] if pre_tokenizer else []
  if steps and pre_tokenizer.get('type') == 'Sequence':
    steps = pre_tokenizer.get('pretokenizers', [])
  kinds = [step.get('type') for step in steps]
  good = kinds in (['Metaspace'], ['WhitespaceSplit', 'Metaspace'])
  if good:
    last = steps[-1]
    first = last.get('prepend_scheme', 'always' if last.get('add_prefix_space') else 'never')
    good = last.get('replacement') == '▁' and first in ('always', 'first')
  if not good:
    raise UserError(f'{path}: words are split as {kinds}, not as SentencePiece does. {REMEDY}', OWN)


def _check_end(path: pathlib.Path, processor: Any) -> None:
  """Text must be followed by the end of the sequence, as a T5's is here, or by nothing."""
  single = processor['single'] if processor else []
  around = [next(iter(step.items())) for step in single]
  if any(kind != 'Sequence' and about.get('id') != '</s>' for kind, about in around) or (
    around and around[0][0] != 'Sequence'
  ):
    raise UserError(f'{path}: the tokens put around a text are {around}. {REMEDY}', OWN)


def _piece(text: str, score: float, kind: int) -> bytes:
  return _bytes(1, text.encode()) + b'\x15' + struct.pack('<f', score) + _varint(3, kind)


def _bytes(field: int, content: bytes) -> bytes:
  """A field of bytes, text or a message in Protocol Buffers' encoding."""
  return _number(field << 3 | 2) + _number(len(content)) + content


def _varint(field: int, value: int) -> bytes:
  return _number(field << 3) + _number(value % 2**64)


def _number(value: int) -> bytes:
  out = bytearray()
  while value > 127:
    out.append(value & 127 | 128)
    value >>= 7
  out.append(value)
  return bytes(out)
