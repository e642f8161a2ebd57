"""What prompts and prompt files ask of a vocabulary, answered by one of seqio's."""

import hashlib
from collections.abc import Sequence

import seqio
import tensorflow as tf

from prompt_jax.data.vocabulary import ByteVocabulary


class SeqioVocabulary:
  """A seqio vocabulary for `prompts.initialise`.

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

  def encode(self, text: str) -> Sequence[int]:
    """The ids of `text`, without an end of sequence."""
    return self._vocabulary.encode(text)


def sha256(vocabulary: seqio.Vocabulary) -> str | None:
  """The hash that prompt files record of a vocabulary; None for kinds that have none."""
  if isinstance(vocabulary, seqio.ByteVocabulary):
    return ByteVocabulary().sha256
  if not isinstance(vocabulary, seqio.SentencePieceVocabulary):
    return None
  with tf.io.gfile.GFile(vocabulary.sentencepiece_model_file, 'rb') as file:
    return hashlib.sha256(file.read()).hexdigest()
