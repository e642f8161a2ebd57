"""What prompts and prompt files ask of a vocabulary, answered by one of seqio's."""

import hashlib
import itertools
from collections.abc import Iterable

import seqio
import tensorflow as tf

from prompt_jax.data.vocabulary import ByteVocabulary


class SeqioVocabulary:
  """A seqio vocabulary as a `data.vocabulary.Vocabulary`.

  Args:
    vocabulary: of the model's input.
  """

  def __init__(self, vocabulary: seqio.Vocabulary):
    self._vocabulary = vocabulary
    self.size: int = vocabulary.vocab_size
    self.extra_ids: int = vocabulary.extra_ids
    self.pad_id: int = vocabulary.pad_id
    self.eos_id: int = vocabulary.eos_id
    self.unk_id: int = vocabulary.unk_id

  @property
  def sentinels(self) -> tuple[int, ...]:
    """The ids of <extra_id_0>, <extra_id_1>, ..., added or the vocabulary's own."""
    if isinstance(self._vocabulary, seqio.ByteVocabulary):
      return ByteVocabulary().sentinels
    found = (self.encode(f'<extra_id_{i}>') for i in itertools.count())
    return tuple(ids[0] for ids in itertools.takewhile(lambda ids: len(ids) == 1, found))

  @property
  def sha256(self) -> str:
    """The hash that tells vocabularies apart; empty for kinds that have none."""
    return sha256(self._vocabulary) or ''

  def encode(self, text: str) -> list[int]:
    """The ids of `text`, without an end of sequence."""
    return list(self._vocabulary.encode(text))

  def decode(self, ids: Iterable[int]) -> str:
    """The text of `ids` up to the first end-of-sequence id."""
    return self._vocabulary.decode([int(i) for i in ids])

  def pieces(self, token_id: int) -> str:
    """The text of one id."""
    return self._vocabulary.decode([token_id])


def sha256(vocabulary: seqio.Vocabulary) -> str | None:
  """The hash that prompt files record of a vocabulary; None for kinds that have none."""
  if isinstance(vocabulary, seqio.ByteVocabulary):
    return ByteVocabulary().sha256
  if not isinstance(vocabulary, seqio.SentencePieceVocabulary):
    return None
  with tf.io.gfile.GFile(vocabulary.sentencepiece_model_file, 'rb') as file:
    return hashlib.sha256(file.read()).hexdigest()
