"""A SentencePiece model as the tokenizer.json of Hugging Face's tokenizers.

transformers opens umT5's vocabularies, and those with pieces for bytes, from this file alone. It
has the pieces with their scores and the table of normalisation, as they stand in the model, which
is read here without the protobuf package. Bytes are pieces of their own.
"""

import base64
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prompt_jax.checkpoints.formats.tokenizer_json import (
  CONTROL,
  OUTER,
  SPACES,
  UNKNOWN,
  USER_DEFINED,
)
from prompt_jax.data.vocabulary import EOS_ID, SentencePieceVocabulary

_SENTINEL = re.compile(r'▁(<extra_id_\d+>)')
_UNIGRAM = 1
_SPACE = {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'always', 'split': True}

_TEXT, _SECOND = ({'Sequence': {'id': name, 'type_id': 0}} for name in 'AB')
_END = {'SpecialToken': {'id': '</s>', 'type_id': 0}}
# The end of the sequence behind a text, and behind each of two.
_COMMON = {
  'version': '1.0',
  'truncation': None,
  'padding': None,
  'post_processor': {
    'type': 'TemplateProcessing',
    'single': [_TEXT, _END],
    'pair': [_TEXT, _END, _SECOND, _END],
    'special_tokens': {'</s>': {'id': '</s>', 'ids': [EOS_ID], 'tokens': ['</s>']}},
  },
}


def tokenizer_json(words: SentencePieceVocabulary) -> dict[str, Any] | None:
  """The file's content; None for a model of another type than T5's, Unigram.

  Text is composed (NFC) first: tokenizers applies the table to one grapheme at a time, and leaves
  decomposed text in pieces that SentencePiece puts together.
  """
  with open(words.path, 'rb') as file:
    model = list(_fields(file.read()))
  trainer = dict(_fields(next((x for n, x in model if n == 2), b'')))
  if trainer.get(3, _UNIGRAM) != _UNIGRAM:
    return None
  rules = dict(_fields(next((x for n, x in model if n == 3), b'')))
  vocab, added = [], []
  for number, piece in ((i, dict(_fields(x))) for i, x in enumerate(x for n, x in model if n == 1)):
    text, kind = piece[1].decode(), piece.get(3, 1)
    sentinel = _SENTINEL.fullmatch(text)
    text = sentinel[1] if sentinel else text
    vocab.append([text, struct.unpack('<f', piece[2])[0] if 2 in piece else 0.0])
    if kind in (CONTROL, UNKNOWN, USER_DEFINED):
      added.append(_added(number, text, special=kind != USER_DEFINED or bool(sentinel)))
  for i in reversed(range(words.extra_ids)):
    added.append(_added(len(vocab), f'<extra_id_{i}>', special=True))
    vocab.append([f'<extra_id_{i}>', 0.0])
  decoders: list[Any] = [_SPACE]
  if trainer.get(35):
    decoders = [{'type': 'ByteFallback'}, _SPACE]
  return {
    **_COMMON,
    'added_tokens': added,
    'normalizer': {'type': 'Sequence', 'normalizers': _normalizers(rules)},
    'pre_tokenizer': _SPACE,
    'decoder': {'type': 'Sequence', 'decoders': decoders},
    'model': {
      'type': 'Unigram', 'unk_id': words.unk_id, 'vocab': vocab,
      'byte_fallback': bool(trainer.get(35)),
    },
  }  # fmt: skip


def with_prompts(
  made: dict[str, Any], rows: int, prompts: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
  """A tokenizer that writes the tokens of a prompt where a text begins, or ends, with its word.

  Args:
    made: what `tokenizer_json` or `bytes_json` gives.
    rows: ids of the model's table, of which those without a piece get names as fillers: added
      tokens have consecutive ids.
    prompts: pattern of a prompt's word in a normalised text -> its tokens, which get the ids behind
      the table in this order.
  """
  known = len(made['model']['vocab'])
  added = [_added(i, f'<unused_{i}>', special=True) for i in range(known, rows)]
  tokens = [token for of_one in prompts.values() for token in of_one]
  # Those of a normalised text are looked for behind the normalizers, which put them there.
  added += [_added(i, t, special=False, normalized=True) for i, t in enumerate(tokens, rows)]
  put = [
    {'type': 'Replace', 'pattern': {'Regex': pattern}, 'content': ''.join(of_one)}
    for pattern, of_one in prompts.items()
  ]
  before = (made['normalizer'] or {'normalizers': []})['normalizers']
  return {
    **made,
    'added_tokens': [*made['added_tokens'], *added],
    'normalizer': {'type': 'Sequence', 'normalizers': [*before, *put]},
  }


def bytes_json() -> dict[str, Any]:
  """The content for bytes: each is a character of its own, as in byte-level BPE without merges."""
  plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
  others = iter(range(256, 512))  # characters for the bytes that are not printable
  names = {byte: chr(byte if byte in plain else next(others)) for byte in range(256)}
  specials = ('<pad>', '</s>', '<unk>')
  vocab = {name: i for i, name in enumerate((*specials, *names.values()))}
  level = {
    'type': 'ByteLevel',
    'add_prefix_space': False,
    'trim_offsets': False,
    'use_regex': False,
  }
  return {
    **_COMMON,
    'added_tokens': [_added(i, name, special=True) for i, name in enumerate(specials)],
    'normalizer': None,
    'pre_tokenizer': level,
    'decoder': level,
    'model': {'type': 'BPE', 'unk_token': '<unk>', 'vocab': vocab, 'merges': []},
  }


def _normalizers(rules: dict[int, Any]) -> list[dict[str, Any]]:
  found: list[dict[str, Any]] = []
  if rules.get(2):
    table = base64.b64encode(rules[2]).decode()
    found += [{'type': 'NFC'}, {'type': 'Precompiled', 'precompiled_charsmap': table}]
  if rules.get(4, 1):  # spaces at the ends and runs of them
    found.append({'type': 'Replace', 'pattern': OUTER, 'content': ''})
    found.append({'type': 'Replace', 'pattern': SPACES, 'content': ' '})
  return found


def _added(number: int, text: str, special: bool, normalized: bool = False) -> dict[str, Any]:
  flags = dict.fromkeys(('single_word', 'lstrip', 'rstrip'), False)
  return {'id': number, 'content': text, **flags, 'normalized': normalized, 'special': special}


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
  """(number, value) of the fields of a message in Protocol Buffers' encoding."""
  at = 0
  while at < len(message):
    key, at = _number(message, at)
    kind = key & 7
    if kind == 0:
      value, at = _number(message, at)
      yield key >> 3, value
      continue
    size = {1: 8, 5: 4}.get(kind)
    if size is None:
      size, at = _number(message, at)
    yield key >> 3, message[at : at + size]
    at += size


def _number(message: bytes, at: int) -> tuple[int, int]:
  """(a number of seven bits a byte, the place behind it)."""
  value = shift = 0
  while True:
    byte = message[at]
    value |= (byte & 127) << shift
    at, shift = at + 1, shift + 7
    if byte < 128:
      return value, at
