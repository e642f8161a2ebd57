"""A vocabulary small enough to train in a moment."""

import io

import pytest
import sentencepiece

from prompt_jax.data.vocabulary import SentencePieceVocabulary

SENTENCES = (
  'the quick brown fox jumps over the lazy dog',
  'a good film and a great story with wonderful actors',
  'a bad film and a poor story with terrible actors',
  'positive negative neutral entailment contradiction true false',
  'what is the name of the river that flows through the town',
  'returns a new list of the numbers and writes files to the folder',
)


def trained_vocabulary(folder, **settings):
  """The path of a SentencePiece model with T5's special ids."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(SENTENCES),
    model_writer=model,
    vocab_size=400,
    hard_vocab_limit=False,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    minloglevel=2,
    **settings,
  )
  path = folder / 'sentencepiece.model'
  path.write_bytes(model.getvalue())
  return path


@pytest.fixture(scope='session')
def vocabulary_file(tmp_path_factory):
  """The path of a SentencePiece model with byte fall-back."""
  return trained_vocabulary(tmp_path_factory.mktemp('vocabulary'), byte_fallback=True)


@pytest.fixture(scope='session')
def vocabulary(vocabulary_file):
  return SentencePieceVocabulary(vocabulary_file)
