"""Plain text as an endless stream of pretraining batches, restartable at any batch.

A batch is a pure function of (seed, batch number): an epoch is a random permutation of equal
chunks that start at a random offset, so nothing but one number has to be saved.
"""

import dataclasses
import lzma
import os
import pathlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from prompt_jax.batch import Batch
from prompt_jax.data.batches import NumberedStream
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError
from prompt_jax.pretraining import span_corruption, word_choice

PretrainingTask = Literal['span_corruption', 'prefix_lm']
# A word choice offers up to so many words, takes wrong ones from a window of so many tokens, and
# has a passage of so many tokens or more.
OPTIONS = 20
WINDOW = 500
SHORTEST = 8


def read_documents(path: str | pathlib.Path) -> list[str]:
  """Documents of a text file (.txt, or .xz of one), separated by empty lines."""
  path = pathlib.Path(path)
  if not os.path.isfile(path):
    raise UserError(f'No text file {path}; give a UTF-8 file with documents between empty lines')
  raw = path.read_bytes()
  if path.suffix == '.xz':
    try:
      raw = lzma.decompress(raw)
    except lzma.LZMAError as error:
      raise UserError(
        f'{path} is not a whole xz file ({error}); compress it again, or drop .xz from its name'
      ) from None
  try:
    text = raw.decode('utf-8')
  except UnicodeDecodeError as error:
    line = raw[: error.start].count(b'\n') + 1
    raise UserError(f'{path}:{line}: not UTF-8 at byte {error.start}; convert the file') from None
  documents = [d.replace('\n', ' ').strip() for d in text.split('\n\n')]
  documents = [d for d in documents if d]
  if not documents:
    raise UserError(f'{path} holds no text')
  return documents


def tokenise(documents: list[str], vocabulary: Vocabulary) -> np.ndarray:
  """All documents as one int32[n] array, each followed by EOS."""
  end = [vocabulary.eos_id]
  return np.concatenate([np.array(vocabulary.encode(d) + end, np.int32) for d in documents])


@dataclasses.dataclass
class TextStream(NumberedStream):
  """Batches of one pretraining task over one token array.

  Attributes:
    tokens: int[n] the text.
    batch_size: rows a batch.
    inputs: longest encoder input, EOS included.
    targets: longest target, EOS included (prefix_lm; span corruption follows from `inputs`).
    sentinels: ids of <extra_id_0>, ...; a row of span corruption may have as many spans.
    objective: "span_corruption" or "prefix_lm".
    eos: id that ends a sequence.
    density: fraction of tokens masked in span corruption.
    mean_span: mean length of a masked span.
    content: bool[V] of `word_choice.content_words`, where `choice_share` is above 0.
    choice_share: fraction of the rows that are word choice instead of `objective`.
    options: the most words that a word choice offers.
    seed: of the order and of the masks.
    number: the next batch.
  """

  tokens: np.ndarray
  batch_size: int
  inputs: int
  targets: int
  sentinels: Sequence[int]
  objective: PretrainingTask = 'span_corruption'
  eos: int = 1
  density: float = 0.15
  mean_span: float = 3.0
  content: np.ndarray | None = None
  choice_share: float = 0.0
  options: int = OPTIONS
  seed: int = 0
  number: int = 0

  def __post_init__(self):
    if self.objective == 'span_corruption':
      most = span_corruption.longest_inputs(len(self.sentinels), self.density, self.mean_span)
      if self.inputs > most:
        raise UserError(
          f'Inputs of {self.inputs} tokens have more masked spans than the {len(self.sentinels)} '
          f'sentinels of the vocabulary; span corruption takes at most {most}',
          ('input_length',),
        )
      self.chunk = span_corruption.chunk_length(self.inputs, self.density, self.mean_span)
      lengths = span_corruption.corrupted_lengths(self.chunk, self.density, self.mean_span)
      self.inputs, self.targets = lengths
    else:
      self.chunk = self.inputs + self.targets - 1
    if self.choice_share and self.content is None:
      raise ValueError('word choice needs `content`, see word_choice.content_words')
    if self.choice_share and self.inputs < self.options + 2 * SHORTEST:
      raise UserError(
        f'Inputs of {self.inputs} tokens are too short for {self.options} words to choose from and '
        f'a passage; give {self.options + 2 * SHORTEST} or more, or no word choice'
      )
    # One chunk is given up for the random offset of an epoch.
    self.rows = len(self.tokens) // self.chunk - 1
    if self.rows < self.batch_size:
      raise UserError(
        f'The text has {len(self.tokens)} tokens: {max(self.rows, 0)} rows of {self.chunk}, '
        f'fewer than one batch of {self.batch_size}; give more text or a smaller batch'
      )

  def identity(self) -> dict[str, int]:
    """No state: only the batch number is saved."""
    return {}

  def batch(self, number: int) -> Batch:
    per_epoch = self.rows // self.batch_size
    epoch, within = divmod(number, per_epoch)
    order = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
    offset = int(order.integers(self.chunk))
    chosen = order.permutation(self.rows)[within * self.batch_size :][: self.batch_size]
    rng = np.random.Generator(np.random.Philox(key=[self.seed + 2**32, number]))
    inputs = np.zeros((self.batch_size, self.inputs), np.int32)
    targets = np.zeros((self.batch_size, self.targets), np.int32)
    for row, i in enumerate(chosen):
      start = offset + int(i) * self.chunk
      x, y = self._example(rng, self.tokens[start : start + self.chunk])
      inputs[row, : len(x)], targets[row, : len(y)] = x, y
    shifted = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
    weights = (targets > 0).astype(np.float32)
    # NumPy until it is put on a device.
    return Batch(inputs, shifted, targets, weights)  # type: ignore[arg-type]

  def _example(self, rng: np.random.Generator, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if self.choice_share and rng.random() < self.choice_share:
      made = self._choice(rng, chunk)
      if made is not None:
        return made
    if self.objective == 'prefix_lm':
      return span_corruption.prefix_lm(rng, chunk, self.inputs, self.targets, eos=self.eos)
    return span_corruption.corrupt_spans(
      rng,
      chunk,
      sentinels=self.sentinels,
      eos=self.eos,
      density=self.density,
      mean_span=self.mean_span,
    )

  def _choice(
    self, rng: np.random.Generator, chunk: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray] | None:
    assert self.content is not None
    passage = chunk[: int(rng.integers(SHORTEST, self.inputs - self.options))]
    start = int(rng.integers(max(1, len(self.tokens) - WINDOW)))
    return word_choice.word_choice(
      rng,
      passage,
      self.tokens[start : start + WINDOW],
      self.content,
      options=self.options,
      answers=min(self.options - 1, self.targets - 1) // 2,
      eos=self.eos,
    )
