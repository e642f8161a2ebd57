"""Word choice: classification tasks made from plain text, for the adaptation stage.

The input offers some words and then a passage from which a few of them were taken out; the target
names those, in the order of the passage. It is the subset masked language modelling of Bansal et
al. 2020 ("Self-Supervised Meta-Learning for Few-Shot Natural Language Classification Tasks",
section 3), which draws its classes from the vocabulary, in text-to-text form: the classes stand in
the input, where a prompt stands, so that a prompt that begins with the label words begins with a
task the model knows.
"""

import numpy as np

from prompt_jax.data.vocabulary import Vocabulary

# A word that occurs less often has no vector worth choosing by.
FEWEST = 20


def content_words(tokens: np.ndarray, vocabulary: Vocabulary, *, common: int = 300) -> np.ndarray:
  """The ids that can be a choice: whole words of three letters or more that carry a topic.

  Args:
    tokens: int[n] the text.
    vocabulary: of the tokens.
    common: so many of the most frequent ids are left out.

  Returns:
    bool[V].
  """
  counts = np.bincount(tokens, minlength=vocabulary.size)
  chosen = np.zeros(vocabulary.size, bool)
  for i in np.flatnonzero(counts >= FEWEST):
    piece = vocabulary.pieces(int(i))
    chosen[i] = piece.startswith('▁') and len(piece) > 3 and piece[1:].isalpha()
  chosen[np.argsort(-counts, kind='stable')[:common]] = False
  return chosen


def word_choice(
  rng: np.random.Generator,
  chunk: np.ndarray,
  elsewhere: np.ndarray,
  content: np.ndarray,
  *,
  options: int,
  answers: int,
  eos: int,
) -> tuple[np.ndarray, np.ndarray] | None:
  """Removes words from a chunk, and offers them among other words.

  Args:
    rng: the source of randomness.
    chunk: int[n] token ids.
    elsewhere: int[m] token ids of other text, where the wrong words come from.
    content: bool[V] of `content_words`.
    options: the most words on offer.
    answers: the most words taken out, fewer than `options`.
    eos: id that ends both sequences.

  Returns:
    int32[<= options + n + 1] inputs and int32[<= answers + 1] targets; None where the chunk has no
    content word.
  """
  words = np.unique(chunk[content[chunk]])
  if not len(words):
    return None
  right = rng.choice(words, min(int(rng.integers(1, answers + 1)), len(words)), replace=False)
  others = np.setdiff1d(elsewhere[content[elsewhere]], words)
  wrong = rng.choice(
    others, min(int(rng.integers(1, options - len(right) + 1)), len(others)), replace=False
  )
  offered = rng.permutation(np.concatenate([right, wrong]))
  taken = np.isin(chunk, right)
  found, first = np.unique(chunk[taken], return_index=True)
  inputs = np.concatenate([offered, chunk[~taken], [eos]])
  targets = np.append(found[np.argsort(first)], eos)
  return inputs.astype(np.int32), targets.astype(np.int32)
