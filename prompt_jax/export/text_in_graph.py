"""Text to ids and back inside a graph of TensorFlow."""

import importlib.util
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.data.vocabulary import SentencePieceVocabulary, Vocabulary

FIRST_BYTE = 3  # the id of byte 0 in the vocabulary of bytes


class Cutter(NamedTuple):
  """Attributes:
  encode: (string[b], int32[b] most ids) -> ragged int32[b, None], no end of the sequence.
  decode: int32[b, U], an end of the sequence included -> string[b].
  resource: what a module must hold.
  """

  encode: Any
  decode: Any
  resource: Any


def lacks(words: Vocabulary) -> bool:
  """Whether text of a vocabulary cannot be cut, as tensorflow-text is absent."""
  needed = isinstance(words, SentencePieceVocabulary)
  return needed and importlib.util.find_spec('tensorflow_text') is None


def cutter(words: Vocabulary) -> Cutter | None:
  """That of a vocabulary; None where it `lacks` what it needs."""
  if lacks(words):
    return None
  if not isinstance(words, SentencePieceVocabulary):
    return _bytes(words)
  import tensorflow as tf
  import tensorflow_text

  made = tensorflow_text.SentencepieceTokenizer(words.model(), out_type=tf.int32)

  def decode(ids: Any) -> Any:
    known = tf.where(ids < words.size, ids, words.unk_id)
    return made.detokenize(tf.ragged.boolean_mask(known, _written(ids, words)))

  return Cutter(lambda text, most: _cut(made.tokenize(text), most), decode, made)


def _bytes(words: Vocabulary) -> Cutter:
  import tensorflow as tf

  def encode(text: Any, most: Any) -> Any:
    each = tf.strings.bytes_split(text)
    number = tf.cast(tf.reshape(tf.io.decode_raw(each.values, tf.uint8), [-1]), tf.int32)
    return _cut(each.with_values(number + FIRST_BYTE), most)

  every = tf.constant([bytes([i]) for i in range(256)])

  def decode(ids: Any) -> Any:
    there = _written(ids, words) & (ids >= FIRST_BYTE) & (ids < FIRST_BYTE + 256)
    found = tf.gather(every, tf.clip_by_value(ids - FIRST_BYTE, 0, 255))
    joined = tf.strings.reduce_join(tf.where(there, found, ''), 1)
    return tf.strings.unicode_transcode(joined, 'UTF-8', 'UTF-8', errors='ignore')

  return Cutter(encode, decode, every)


def _cut(ids: Any, most: Any) -> Any:
  import tensorflow as tf

  there = tf.ragged.range(ids.row_lengths())
  return tf.ragged.boolean_mask(ids, there < tf.cast(most, tf.int64)[:, None])


def _written(ids: Any, words: Vocabulary) -> Any:
  """bool[b, U] what comes before the end of the sequence and is no padding."""
  import tensorflow as tf

  ended = tf.cumsum(tf.cast(ids == words.eos_id, np.int32), 1)
  return (ended == 0) & (ids != words.pad_id)
