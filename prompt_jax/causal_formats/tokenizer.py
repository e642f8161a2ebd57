"""The vocabulary of a decoder-only model: a tokenizer.json, with the ids that all of ours have.

0 is padding and 1 ends a text in every vocabulary of this package, while these models have other
ids for both, and for 0 and 1 tokens of their own. So ids change places: padding with 0 and the end
of a text with 1, in the vocabulary and in the rows of the embedding table (see `reordered`).
"""

import functools
import hashlib
import os
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
  """
  found = np.arange(rows, dtype=np.int32)
  for ours, theirs in ((PAD_ID, pad), (EOS_ID, eos)):
    at = int(np.flatnonzero(found == theirs)[0])
    found[[ours, at]] = found[[at, ours]]
  return found


class TokenizerVocabulary:
  """A tokenizer of Hugging Face's library `tokenizers`, with our ids.

  Text that looks like one of its special tokens stays text.

  Args:
    path: of a tokenizer.json.
    pad: the model's own id of padding.
    eos: the model's own id of the end of a text.

  Raises:
    UserError: `tokenizers` is absent, the file is damaged, or it has not these ids.
  """

  def __init__(self, path: str | os.PathLike[str], pad: int, eos: int):
    self.path, self.pad, self.eos = str(path), pad, eos
    raw, tokenizers = _read(pathlib.Path(path)), _library()
    try:
      self._tokenizer: Any = tokenizers.Tokenizer.from_str(raw.decode('utf-8'))
    except Exception as error:  # the library raises Exception itself
      raise UserError(f'{path} is damaged or no tokenizer: {error}. Copy it again.') from None
    self._tokenizer.encode_special_tokens = True
    self._tokenizer.no_truncation()
    self._tokenizer.no_padding()
    self.size: int = self._tokenizer.get_vocab_size(with_added_tokens=True)
    for name, number in (('padding', pad), ('the end of a text', eos)):
      if not 0 <= number < self.size:
        raise UserError(f'{path} has {self.size} ids; {name} has {number}.')
    if pad == eos:
      raise UserError(f'{path}: padding and the end of a text have one id, {eos}; give two.')
    self.extra_ids, self.sentinels = 0, ()
    self.pad_id, self.eos_id = PAD_ID, EOS_ID
    self.unk_id = -1  # every byte can be written
    self.sha256 = hashlib.sha256(raw + f'{pad},{eos}'.encode()).hexdigest()
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
    return f'TokenizerVocabulary({self.path!r}, pad={self.pad}, eos={self.eos})'


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
  return Frame(words.begin(), words.encode('\n'), False)


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


def _read(path: pathlib.Path) -> bytes:
  if not path.is_file():
    raise UserError(f'{path.parent} has no {path.name}: the vocabulary is missing.')
  return path.read_bytes()
