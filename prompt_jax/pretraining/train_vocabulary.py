"""Trains a SentencePiece vocabulary on text."""

import pathlib
import re
from collections.abc import Iterator, Sequence

import sentencepiece

from prompt_jax.errors import UserError

# Sentences that are trained on at most; more take memory and change little.
SENTENCES = 100_000
# One is up to 1000 characters, cut at white space where there is any; SentencePiece passes over
# what has more than 4192 bytes.
SENTENCE = re.compile(r'.{1,1000}(?:\s|$)|.{1000}', re.DOTALL)


def train_vocabulary(documents: Sequence[str], pieces: int, path: pathlib.Path) -> None:
  """Writes a unigram model with T5's special ids (padding 0, end 1, unknown 2) and all bytes.

  Args:
    documents: the text.
    pieces: ids of the vocabulary.
    path: of the model file; it appears whole or not at all.

  Raises:
    UserError: the text is too short for so many pieces.
  """
  part = path.with_suffix('.part')
  try:
    sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=_sentences(documents),
      model_prefix=str(part),
      vocab_size=pieces,
      pad_id=0,
      eos_id=1,
      unk_id=2,
      bos_id=-1,
      byte_fallback=True,
      input_sentence_size=SENTENCES,
      shuffle_input_sentence=True,
      minloglevel=2,
    )
  except RuntimeError as e:
    raise UserError(
      f'No vocabulary of {pieces} pieces can be made of this text: {e}. Give more text, a smaller '
      'model (T5Config.vocab_size), or a vocabulary.',
      ('vocabulary',),
    ) from None
  part.with_suffix('.part.vocab').unlink()
  part.with_suffix('.part.model').replace(path)


def _sentences(documents: Sequence[str]) -> Iterator[str]:
  """The documents in parts that SentencePiece takes."""
  for document in documents:
    yield from re.findall(SENTENCE, document)
