"""The vocabulary of a decoder-only model: a tokenizer.json, with the ids that all of ours have.

0 is padding and 1 ends a text in every vocabulary of this package, while these models have other
ids for both, and for 0 and 1 tokens of their own. So ids change places: padding with 0 and the end
of a text with 1, in the vocabulary and in the rows of the embedding table (see `reordered`).
"""

import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.data.vocabulary import EOS_ID, PAD_ID
from prompt_jax.errors import UserError, install

FILE_NAME = 'tokenizer.json'
# The tokens of ChatML around a turn, with which many chat models were trained.
TURN, END_OF_TURN = '<|im_start|>', '<|im_end|>'


def order(rows: int, pad: int, eos: int) -> np.ndarray:
  """int32[rows] the model's own id of each of ours.

  Args:
    rows: of the embedding table.
    pad: the model's own id of padding.
    eos: the model's own id of the end of a text.

  Raises:
    UserError: one of them has no row.
  """
  if not 0 <= min(pad, eos) <= max(pad, eos) < rows:
    raise UserError(
      f'Padding has the id {pad} and the end of a text {eos}, and the embedding table has {rows} '
      'rows: the tokenizer belongs to another model.'
    )
  found = np.arange(rows, dtype=np.int32)
  for ours, theirs in ((PAD_ID, pad), (EOS_ID, eos)):
    at = int(np.flatnonzero(found == theirs)[0])
    found[[ours, at]] = found[[at, ours]]
  return found


class TokenizerVocabulary:
  """A tokenizer of Hugging Face's library `tokenizers`, with our ids.

  Text that looks like one of its special tokens stays text.

  Args:
    raw: a tokenizer.json.
    where: it is from, for messages.
    pad: the model's own id of padding.
    eos: the model's own id of the end of a text.

  Raises:
    UserError: `tokenizers` is absent, the file is damaged, of another kind, or has not these ids.
  """

  def __init__(self, raw: bytes, where: str, pad: int, eos: int):
    self.raw, self.where, self.pad, self.eos = raw, where, pad, eos
    self._tokenizer, tokens = _loaded(raw, where)
    if not 0 <= eos < tokens or pad < 0:
      raise UserError(
        f'{where} has {tokens} ids from 0; padding has {pad} and the end of a text {eos}.'
      )
    if pad == eos:
      raise UserError(f'{where}: padding and the end of a text have one id, {eos}; give two.')
    self.extra_ids, self.sentinels = 0, ()
    self.pad_id, self.eos_id = PAD_ID, EOS_ID
    self.unk_id = -1  # every byte can be written
    self.sha256 = hashlib.sha256(raw + f'{pad},{eos}'.encode()).hexdigest()
    self.size: int = max(tokens, pad + 1)  # padding may be a row that no token has
    self._theirs = order(self.size, pad, eos)
    self._ours = np.argsort(self._theirs).astype(np.int32)

  def ids_of(self, token: str) -> list[int]:
    """The id of a whole token; none if it is no token."""
    found = self._tokenizer.token_to_id(token)
    return [] if found is None else [int(self._ours[found])]

  def encode(self, text: str) -> list[int]:
    """The ids of `text`, without an end-of-sequence id."""
    return self._ours[self._tokenizer.encode(text, add_special_tokens=False).ids].tolist()

  def decode(self, ids: Iterable[int]) -> str:
    """The text of `ids` up to the first end-of-sequence id; padding adds nothing."""
    real = []
    for i in map(int, ids):
      if i == EOS_ID:
        break
      if i != PAD_ID and i < self.size:
        real.append(int(self._theirs[i]))
    return self._tokenizer.decode(real)

  def pieces(self, token_id: int) -> str:
    """The token of one id; rows that only pad the embedding table have none."""
    if not 0 <= token_id < self.size:
      return f'<{token_id}>'
    return self._tokenizer.id_to_token(int(self._theirs[token_id])) or f'<{token_id}>'

  def begin(self) -> list[int]:
    """What the tokenizer puts in front of every text, such as `<bos>`."""
    added = self._tokenizer.encode('', add_special_tokens=True).ids
    return [int(self._ours[i]) for i in added if i != self.eos]

  def __eq__(self, other: object) -> bool:
    if not isinstance(other, TokenizerVocabulary):
      return NotImplemented
    return self.sha256 == other.sha256

  def __hash__(self) -> int:
    return hash(self.sha256)

  def __repr__(self) -> str:
    return f'TokenizerVocabulary({self.where!r}, pad={self.pad}, eos={self.eos})'


class Frame(NamedTuple):
  """What stands around an input, see `CausalConfig`."""

  before: Sequence[int]
  between: Sequence[int]
  reads_end: bool


def frame(words: TokenizerVocabulary) -> Frame:
  """How a model is asked: as a turn of a chat where its texts end as such turns do, else plainly.

  ChatML puts "<|im_start|>user" and a new line before an input, and behind it "<|im_end|>", a new
  line, "<|im_start|>assistant" and a new line. A plain text begins as the tokenizer begins texts,
  and a new line is behind the input.
  """
  turn, end = words.ids_of(TURN), words.ids_of(END_OF_TURN)
  if turn and end == [words.eos_id]:
    answer = [*words.encode('\n'), *turn, *words.encode('assistant\n')]
    return Frame([*turn, *words.encode('user\n')], answer, True)
  behind = words.encode('a\n')[len(words.encode('a')) :]  # alone it may begin as a word does
  return Frame(words.begin(), behind, False)


def _loaded(raw: bytes, where: str) -> tuple[Any, int]:
  """The tokenizer, and one more than its greatest id.

  Raises:
    UserError: it is damaged, or cannot write every text.
  """
  tokenizers = _library()
  try:
    found = tokenizers.Tokenizer.from_str(raw.decode('utf-8'))
    about = json.loads(raw)
  except Exception as error:  # the library raises Exception itself
    raise UserError(f'{where} is damaged or no tokenizer: {error}. Copy it again.') from None
  kind, cut = about['model'].get('type'), json.dumps(about.get('pre_tokenizer'))
  if kind != 'BPE' or not ('"ByteLevel"' in cut or about['model'].get('byte_fallback')):
    raise UserError(
      f'{where} is a tokenizer of the kind {kind}; expected BPE of bytes, or with a fallback to '
      'bytes, as the models have that can be read.'
    )
  found.encode_special_tokens = True
  found.no_truncation()
  found.no_padding()
  return found, max(found.get_vocab(with_added_tokens=True).values()) + 1


@functools.cache
def _library() -> Any:
  try:
    import tokenizers
  except ImportError as error:
    raise UserError(
      f'The vocabulary of a decoder-only model needs tokenizers ({error}). Install it, '
      f'{install("causal")}'
    ) from error
  return tokenizers


def read(path: pathlib.Path) -> bytes:
  """A tokenizer.json.

  Raises:
    UserError: it is missing.
  """
  if not path.is_file():
    raise UserError(f'{path.parent} has no {path.name}: the vocabulary is missing.')
  return path.read_bytes()


class TokenIds:
  """The model's own ids of a tokenizer, as it is before any change places.

  Args:
    raw: a tokenizer.json.
    where: it is from, for messages.

  Raises:
    UserError: see `TokenizerVocabulary`.
  """

  def __init__(self, raw: bytes, where: str):
    self._where, (self._tokenizer, self._tokens) = where, _loaded(raw, where)
    added = json.loads(raw).get('added_tokens') or []
    self._specials = [token['id'] for token in added if token.get('special')]

  def of(self, token: str) -> int | None:
    """The id of a token; None if it is none."""
    return self._tokenizer.token_to_id(token)

  def choose_pad(self, said: Sequence[int | None], eos: int, rows: int) -> int:
    """What is padding: of the ids that are said, the first that stands for nothing else.

    Else a row of the table that no token has, else the last special token.

    Args:
      said: ids that may be padding, the best first.
      eos: the id of the end of a text.
      rows: of the embedding table.

    Raises:
      UserError: every token stands for something.
    """
    begin = self._tokenizer.encode('', add_special_tokens=True).ids
    used = {None, eos, *begin, self.of(TURN), self.of(END_OF_TURN)}
    spare = [self._tokens] if self._tokens < rows else []
    found = next((i for i in (*said, *spare, *reversed(self._specials)) if i not in used), None)
    if found is None:
      raise UserError(f'{self._where} has no token that could pad a text. Add a pad_token to it.')
    return found
