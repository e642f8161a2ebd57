"""Text to token ids and back, without TensorFlow, with the ids of seqio's vocabularies."""

import hashlib
import itertools
import json
import os
import pathlib
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Protocol

import sentencepiece

from prompt_jax.errors import UserError

# The name of the SentencePiece model inside a model's folder.
FILE_NAME = 'sentencepiece.model'
# T5 reserves 0 for padding and 1 for the end of a sequence, whatever the vocabulary.
PAD_ID = 0
EOS_ID = 1
# Number of ids that are added at the end: T5's sentinels, and rows of ByT5's that nothing reads.
T5_EXTRA_IDS = 100
BYT5_EXTRA_IDS = 125
MOST_EXTRA_IDS = 100_000
# Beside a .model file it may say how many sentinels are to be added: {"extra_ids": 300}.
SETTINGS = 'tokenizer_config.json'
_COUNTED = re.compile(r'(.+):(\d{1,5})')


class Vocabulary(Protocol):
  """The interface of a vocabulary.

  Attributes:
    size: number of ids, extra ids included; a model's embedding table has at least as many rows.
    extra_ids: number of ids that were added at the end.
    sentinels: the ids of <extra_id_0>, <extra_id_1>, ..., added or the vocabulary's own. ByT5 was
      trained with its last bytes instead.
    pad_id: 0.
    eos_id: 1.
    unk_id: id of text that the vocabulary cannot represent.
    sha256: hexadecimal hash that tells vocabularies apart (of a SentencePiece model: of its file).
  """

  @property
  def size(self) -> int: ...
  @property
  def extra_ids(self) -> int: ...
  @property
  def sentinels(self) -> tuple[int, ...]: ...
  @property
  def pad_id(self) -> int: ...
  @property
  def eos_id(self) -> int: ...
  @property
  def unk_id(self) -> int: ...
  @property
  def sha256(self) -> str: ...

  def encode(self, text: str) -> list[int]:
    """The ids of `text`, without an end-of-sequence id."""
    ...

  def decode(self, ids: Iterable[int]) -> str:
    """The text of `ids` up to the first end-of-sequence id; padding adds nothing."""
    ...

  def pieces(self, token_id: int) -> str:
    """The text of one id, for tables and plots."""
    ...


class SentencePieceVocabulary:
  """A SentencePiece model with `<extra_id_0>`, ... added at its end, last sentinel first.

  Args:
    path: the `.model` file.
    extra_ids: sentinels to add; 0 for a model that holds its own (mT5's).
    assumed: whether that number is only the usual one.

  Raises:
    UserError: the file is missing, is no SentencePiece model, holds sentinels although more are to
      be added, or has other ids than T5's for padding (0) and the end of a sequence (1).
  """

  def __init__(
    self, path: str | os.PathLike[str], extra_ids: int = T5_EXTRA_IDS, assumed: bool = False
  ):
    self.path = str(path)
    self.assumed = assumed
    _check_count(extra_ids)
    model = _read(pathlib.Path(path))
    if extra_ids and _holds_sentinels(model):
      raise UserError(
        f'{path} holds its own sentinels, and {extra_ids} more are to be added (extra_ids): its '
        'model has 0 of them.'
      )
    self.sha256 = hashlib.sha256(model).hexdigest()
    self.extra_ids = extra_ids
    self._processor = _load(model, extra_ids, self.path)
    if self._processor.pad_id() != PAD_ID or self._processor.eos_id() != EOS_ID:
      raise UserError(
        f'{path}: padding has id {self._processor.pad_id()} and the end of a sequence '
        f'{self._processor.eos_id()}; T5 needs {PAD_ID} and {EOS_ID}. '
        'Train the vocabulary with --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1.'
      )
    self.pad_id = PAD_ID
    self.eos_id = EOS_ID
    self.unk_id: int = self._processor.unk_id()
    self.size: int = self._processor.get_piece_size()
    self.sentinels = tuple(self._sentinels())

  def _sentinels(self) -> Iterator[int]:
    for i in itertools.count():
      ids = self.ids_of(f'<extra_id_{i}>')
      if not ids:
        return
      yield ids[0]

  def model(self) -> bytes:
    """The SentencePiece model with the sentinels, which cuts text into these ids by itself."""
    return self._processor.serialized_model_proto()

  def ids_of(self, token: str) -> list[int]:
    """The ids of a whole piece, with and without a space before it; none if it is no piece."""
    ids = {self._processor.piece_to_id(piece) for piece in (f'▁{token}', token)}
    return sorted(i for i in ids if i != self.unk_id or token == self.pieces(self.unk_id))

  def encode(self, text: str) -> list[int]:
    """The ids of `text`, without an end-of-sequence id."""
    return self._processor.encode(text)

  def decode(self, ids: Iterable[int]) -> str:
    """The text of `ids` up to the first end-of-sequence id; ids past the table are unknown."""
    real = [i if i < self.size else self.unk_id for i in _until_eos(ids)]
    return self._processor.decode(real)

  def pieces(self, token_id: int) -> str:
    """The piece of one id; rows that only pad the embedding table have none."""
    return self._processor.id_to_piece(token_id) if token_id < self.size else f'<{token_id}>'

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, SentencePieceVocabulary):
      return NotImplemented
    return (self.sha256, self.extra_ids) == (other.sha256, other.extra_ids)

  def __hash__(self) -> int:
    return hash((self.sha256, self.extra_ids))

  def __repr__(self) -> str:
    return f'SentencePieceVocabulary({self.path!r}, extra_ids={self.extra_ids})'


class ByteVocabulary:
  """UTF-8 bytes (ByT5, Xue et al. 2022): byte b is id b + 3, after padding, end and unknown."""

  def __init__(self, extra_ids: int = BYT5_EXTRA_IDS):
    _check_count(extra_ids)
    self.extra_ids = extra_ids
    self.pad_id = PAD_ID
    self.eos_id = EOS_ID
    self.unk_id = 2
    self._first = 3
    self.size = self._first + 256 + extra_ids
    # As ByT5 was trained, with seqio's vocabulary of no extra ids (section 3.1 of the paper).
    self.sentinels = tuple(range(self._first + 255, self._first + 255 - T5_EXTRA_IDS, -1))
    self.sha256 = hashlib.sha256(f'bytes+{self._first}'.encode()).hexdigest()

  def ids_of(self, token: str) -> list[int]:
    """The ids that a named token may have; bytes have no names.

    Software differs in the order of the added ids, of which no model has trained one.
    """
    named = {'<pad>': self.pad_id, '</s>': self.eos_id, '<unk>': self.unk_id}
    added = [i for i in range(self.size) if re.fullmatch(r'<extra_id_\d+>', self.pieces(i))]
    return [named[token]] if token in named else added if token.startswith('<extra_id_') else []

  def encode(self, text: str) -> list[int]:
    """The ids of the bytes of `text`, without an end-of-sequence id."""
    return [byte + self._first for byte in text.encode('utf-8')]

  def decode(self, ids: Iterable[int]) -> str:
    """The text of `ids` up to the first end-of-sequence id; broken UTF-8 is left out."""
    content = (i - self._first for i in _until_eos(ids))
    return bytes(b for b in content if 0 <= b < 256).decode('utf-8', errors='ignore')

  def pieces(self, token_id: int) -> str:
    """The byte of one id: printable ASCII as it is, others as <0x..>."""
    byte = token_id - self._first
    if 0 <= byte < 256:
      return chr(byte) if 32 < byte < 127 else f'<0x{byte:02X}>'
    specials = {self.pad_id: '<pad>', self.eos_id: '</s>', self.unk_id: '<unk>'}
    sentinel = self.size - 1 - token_id
    return specials.get(
      token_id, f'<extra_id_{sentinel}>' if 0 <= sentinel < self.extra_ids else f'<{token_id}>'
    )

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, ByteVocabulary):
      return NotImplemented
    return self.extra_ids == other.extra_ids

  def __hash__(self) -> int:
    return hash((self.sha256, self.extra_ids))

  def __repr__(self) -> str:
    return f'ByteVocabulary(extra_ids={self.extra_ids})'


def load_vocabulary(
  path: str | os.PathLike[str], extra_ids: int | None = None
) -> SentencePieceVocabulary | ByteVocabulary:
  """The vocabulary at `path`.

  Args:
    path: 'bytes' (ByT5), a SentencePiece `.model` file, or a folder that holds
      `sentencepiece.model`; with ":300" behind it for that number of sentinels.
    extra_ids: number of sentinels to add; None for what `path` says, else what a file
      `tokenizer_config.json` beside it says, else the family's own number (ByT5 125; 0 if the model
      holds `<extra_id_0>`, as mT5's does; 100 for any other).

  Raises:
    UserError: there is no such file, or it is no vocabulary of a T5 model.
  """
  name, counted = os.fspath(path), _COUNTED.fullmatch(os.fspath(path))
  if counted and not os.path.exists(name):
    name, extra_ids = counted[1], int(counted[2]) if extra_ids is None else extra_ids
  if name == 'bytes':
    return ByteVocabulary(BYT5_EXTRA_IDS if extra_ids is None else extra_ids)
  file = pathlib.Path(name)
  if os.path.isdir(file):
    file = file / FILE_NAME
  if extra_ids is None:
    extra_ids = 0 if _holds_sentinels(_read(file)) else _said_beside(file)
  assumed = extra_ids is None
  return SentencePieceVocabulary(file, T5_EXTRA_IDS if extra_ids is None else extra_ids, assumed)


def _check_count(extra_ids: int) -> None:
  if not 0 <= extra_ids <= MOST_EXTRA_IDS:
    raise UserError(f'extra_ids is {extra_ids}; expected 0 to {MOST_EXTRA_IDS} ids to add.')


def _holds_sentinels(model: bytes) -> bool:
  # The pieces are plain UTF-8 in the file, so its own sentinels show without parsing it.
  return b'<extra_id_0>' in model


def _said_beside(file: pathlib.Path) -> int | None:
  """The number of sentinels that the file beside a vocabulary says, if there is one."""
  path = file.with_name(SETTINGS)
  try:
    count = json.loads(path.read_text('utf-8')).get('extra_ids') if path.is_file() else None
  except (OSError, ValueError, AttributeError):
    raise UserError(f'{path} is no JSON object. Copy it again.') from None
  if count is None or (isinstance(count, int) and not isinstance(count, bool) and count >= 0):
    return count
  raise UserError(f'{path}: extra_ids is {count!r}; expected a whole number.')


def _read(path: pathlib.Path) -> bytes:
  if not os.path.isfile(path):
    raise UserError(
      f'There is no vocabulary file {path}. Expected a SentencePiece .model file, a folder that '
      f"holds {FILE_NAME}, or 'bytes' for ByT5's vocabulary."
    )
  return path.read_bytes()


def _load(model: bytes, extra_ids: int, path: str) -> sentencepiece.SentencePieceProcessor:
  # Written to a file, repeated protobuf fields append by concatenation: the sentinels are added
  # without needing the protobuf package.
  sentinels = b''.join(_piece(f'▁<extra_id_{i}>') for i in reversed(range(extra_ids)))
  processor = sentencepiece.SentencePieceProcessor()
  try:
    processor.LoadFromSerializedProto(model + sentinels)
  except RuntimeError as error:
    raise UserError(f'{path} is not a SentencePiece model, or is damaged: {error}') from error
  return processor


def _piece(text: str) -> bytes:
  """One user-defined piece as field 1 of SentencePiece's ModelProto: text, score 0, type 4."""
  raw = text.encode('utf-8')
  body = b'\x0a' + bytes([len(raw)]) + raw + b'\x15' + struct.pack('<f', 0.0) + b'\x18\x04'
  return b'\x0a' + bytes([len(body)]) + body


def _until_eos(ids: Iterable[int]) -> list[int]:
  """Plain ints before the first end of sequence, without padding."""
  real = []
  for i in ids:
    if int(i) == EOS_ID:
      break
    if int(i) != PAD_ID:
      real.append(int(i))
  return real
