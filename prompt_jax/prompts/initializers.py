"""Where a prompt starts: pure functions of a key, a shape and the frozen embedding table.

An initialiser is a frozen dataclass, so that configurations can build it and a model that holds it
hashes. It is called as `init(key, shape, embedding, vocabulary) -> float32[shape]`; the shape ends
in (P, H), and axes before that (layers, say) each hold one prompt. `prompts.initialise` supplies
the embedding table and the vocabulary.

Lester et al. 2021 (arXiv:2104.08691), section 3.2, compare uniform, sampled vocabulary and class
labels; up to T5 XL, class labels do best.
"""

import abc
import dataclasses
import math
import os
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError

Array = jax.Array
Shape = tuple[int, ...]


class Initializer(abc.ABC):
  """Frozen dataclasses derive from this; `prompts.initialise` finds them by it."""

  @abc.abstractmethod
  def __call__(
    self,
    key: Array,
    shape: Shape,
    embedding: Any = None,
    vocabulary: Vocabulary | None = None,
  ) -> Array:
    """Makes an initial value.

    Args:
      key: PRNG key.
      shape: of the value, (..., P, H).
      embedding: [V, H] the frozen embedding table, any float dtype.
      vocabulary: whose ids index the table.

    Returns:
      float32[shape].

    Raises:
      UserError: the table or the vocabulary is needed and absent, or the shape cannot be had.
    """

  def for_labels(self, labels: Sequence[str]) -> 'Initializer':
    """The initialiser for a task that answers with `labels`; most do not care."""
    del labels
    return self


@dataclasses.dataclass(frozen=True)
class Zeros(Initializer):
  """All zeros: added keys and values that start without effect on the values read."""

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    return jnp.zeros(shape, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Uniform(Initializer):
  """U[-limit, limit), the paper's "random uniform" with limit 0.5."""

  limit: float = 0.5

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    return jax.random.uniform(key, shape, jnp.float32, -self.limit, self.limit)


@dataclasses.dataclass(frozen=True)
class PositiveUniform(Initializer):
  """U[0, limit): what google-research/prompt-tuning draws, with limit 0.5, for "random uniform"."""

  limit: float = 0.5

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    return jax.random.uniform(key, shape, jnp.float32, 0.0, self.limit)


@dataclasses.dataclass(frozen=True)
class Normal(Initializer):
  """N(0, stddev^2). Torch embeddings start at 1, and so do P-tuning and prefix tuning."""

  stddev: float = 1.0

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    return self.stddev * jax.random.normal(key, shape, jnp.float32)


@dataclasses.dataclass(frozen=True)
class MatchedNormal(Initializer):
  """Normal with the mean and standard deviation, per dimension, of the embedding rows.

  Rows past the vocabulary, which only pad the table, do not count.
  """

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    table = _table(self, embedding, shape)
    rows = table if vocabulary is None else table[: vocabulary.size]
    rows = jnp.asarray(rows, jnp.float32)
    noise = jax.random.normal(key, shape, jnp.float32)
    mean, deviation = (jnp.broadcast_to(f(rows, axis=0), shape) for f in (jnp.mean, jnp.std))
    return mean + deviation * noise


@dataclasses.dataclass(frozen=True)
class SampledVocabulary(Initializer):
  """Embeddings of tokens drawn from the first `population` ids, the most frequent ones.

  Padding, end, unknown and sentinels are never drawn. Each prompt's tokens differ from one another
  unless there are fewer than P to draw from.

  Attributes:
    population: how many ids, from 0; google-research/prompt-tuning takes 5000.
  """

  population: int = 5000

  def __post_init__(self):
    if self.population < 1:
      raise UserError(f'SampledVocabulary.population is {self.population}; it must be at least 1.')

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    table = _table(self, embedding, shape)
    *lead, p, _ = shape
    ids = self._ids(vocabulary, table.shape[0])
    draw = lambda k: jax.random.choice(k, ids, (p,), replace=p > ids.size)
    if lead:
      chosen = jax.vmap(draw)(jax.random.split(key, math.prod(lead))).reshape(*lead, p)
    else:
      chosen = draw(key)
    return _rows(table, chosen)

  def _ids(self, vocabulary: Vocabulary | None, rows: int) -> np.ndarray:
    vocabulary = _needed(self, vocabulary)
    named = [i for i in vocabulary.sentinels if '<extra_id_' in vocabulary.pieces(i)]
    words = min(vocabulary.size - vocabulary.extra_ids, rows)
    if self.population > words:
      warnings.warn(
        f'SampledVocabulary.population is {self.population}, but the vocabulary has {words} ids '
        'before its sentinels: drawing from those.',
        stacklevel=2,
      )
    specials = [vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id, *named]
    ids = np.setdiff1d(np.arange(min(self.population, words)), specials)
    if not ids.size:
      raise UserError(
        f'SampledVocabulary.population is {self.population}: the first {self.population} ids are '
        'padding, end of sequence and unknown. Give a larger one; the default is 5000.'
      )
    return ids


@dataclasses.dataclass(frozen=True)
class ClassLabels(Initializer):
  """Row i is the mean embedding of the pieces of label i; the rest comes from `fallback`.

  Attributes:
    labels: the words a task answers with, in any order. Those beyond P are left out, with a
      warning. None at all, as in a task of free text: every row comes from `fallback`.
    fallback: for the rows after the labels; the paper takes sampled vocabulary.
  """

  labels: Sequence[str] = ()
  fallback: Initializer = dataclasses.field(default_factory=SampledVocabulary)

  def __post_init__(self):
    if isinstance(self.labels, str):
      raise UserError(f'ClassLabels.labels is a list of texts; got the text {self.labels!r}.')
    object.__setattr__(self, 'labels', tuple(self.labels))  # gin gives lists, which do not hash

  def for_labels(self, labels: Sequence[str]) -> 'ClassLabels':
    return self if self.labels else dataclasses.replace(self, labels=tuple(labels))

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    if not self.labels:
      return self.fallback(key, shape, embedding, vocabulary)
    table = _table(self, embedding, shape)
    p = shape[-2]
    if len(self.labels) > p:
      warnings.warn(
        f'The prompt has {p} rows for {len(self.labels)} class labels; leaving out '
        f'{", ".join(map(repr, self.labels[p:]))}.',
        stacklevel=2,
      )
    encode = _needed(self, vocabulary).encode
    means = [jnp.mean(_rows(table, _pieces(encode, text)), axis=0) for text in self.labels[:p]]
    return _then_fallback(jnp.stack(means), self.fallback, key, shape, embedding, vocabulary)


@dataclasses.dataclass(frozen=True)
class Text(Initializer):
  """Row i is the embedding of piece i of `text`; the rest comes from `fallback`.

  Attributes:
    text: what the prompt says at first. Pieces beyond P are left out, with a warning.
    tile: repeats the text until the prompt is full, as DePT and ADePT do, so that no row is left
      for `fallback`.
    fallback: for the rows after the text.
  """

  text: str = ''
  tile: bool = False
  fallback: Initializer = dataclasses.field(default_factory=SampledVocabulary)

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    table = _table(self, embedding, shape)
    ids = _pieces(_needed(self, vocabulary).encode, self.text)
    p = shape[-2]
    if len(ids) > p:
      warnings.warn(
        f'The prompt has {p} rows for the {len(ids)} pieces of {self.text!r}; leaving out the '
        f'last {len(ids) - p}.',
        stacklevel=2,
      )
    if self.tile:
      ids = np.resize(ids, p)
    rows = _rows(table, ids[:p])
    return _then_fallback(rows, self.fallback, key, shape, embedding, vocabulary)


@dataclasses.dataclass(frozen=True)
class LabelPieces(Initializer):
  """int32[n] the ids of the pieces of the labels, each once; 0 behind the last.

  Attributes:
    labels: the words a task answers with; None for those of the task.
  """

  labels: Sequence[str] = ()

  def __post_init__(self):
    object.__setattr__(self, 'labels', tuple(self.labels or ()))

  def for_labels(self, labels: Sequence[str]) -> 'LabelPieces':
    return self if self.labels else dataclasses.replace(self, labels=tuple(labels))

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    if not self.labels:
      raise UserError(
        'The method trains rows for the labels of a task, and this one has none: its answers are '
        'free text. Give another prompt method.'
      )
    encode = _needed(self, vocabulary).encode
    ids = list(dict.fromkeys(int(i) for text in self.labels for i in _pieces(encode, text)))
    if len(ids) > shape[0]:
      raise UserError(
        f'The labels have {len(ids)} different pieces, and the prompt has {shape[0]} rows for '
        f'them: set answers to {len(ids)}.'
      )
    return jnp.asarray(ids + [0] * (shape[0] - len(ids)), jnp.int32)


@dataclasses.dataclass(frozen=True, eq=False)
class FromArray(Initializer):
  """A given value. It compares by identity, since arrays do not hash."""

  value: Any

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    return _given(self.value, shape, 'the array given to FromArray')


@dataclasses.dataclass(frozen=True)
class FromFile(Initializer):
  """A saved .npy array, with or without that ending of the file's name."""

  path: str = ''

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    if not os.path.isfile(self.path):
      raise UserError(f'FromFile.path: there is no file {self.path!r}. Give a .npy file.')
    try:
      with open(self.path, 'rb') as opened:  # of an archive, NumPy would leave it open
        value = np.load(opened, allow_pickle=False)
    except (OSError, ValueError) as e:
      raise UserError(f'{self.path} is not a .npy array of numbers: {e}') from e
    if not isinstance(value, np.ndarray):  # an .npz archive
      raise UserError(f'{self.path} holds several arrays ({", ".join(value)}); give one as .npy.')
    return _given(value, shape, self.path)


@dataclasses.dataclass(frozen=True)
class FromFiles(Initializer):
  """A saved .npy array for each number of the first axis."""

  paths: Sequence[str] = ()

  def __post_init__(self):
    object.__setattr__(self, 'paths', tuple(self.paths))  # gin gives lists, which do not hash

  def __call__(self, key, shape, embedding=None, vocabulary=None):
    if len(self.paths) != shape[0]:
      raise UserError(
        f'FromFiles.paths names {len(self.paths)} files; expected {shape[0]}, one for each task.'
      )
    return jnp.stack([FromFile(path)(key, tuple(shape[1:])) for path in self.paths])


def _given(value: Any, shape: Shape, source: str) -> Array:
  """`value` as float32, if it is numbers of that shape."""
  value = np.asarray(value)
  if value.shape != tuple(shape):
    raise UserError(
      f'The prompt has shape {tuple(shape)}, but {source} has {value.shape}. Set the length of the '
      'prompt and choose the model to fit, or start from another value.'
    )
  try:
    value = value.astype(np.float32)
  except (TypeError, ValueError):
    raise UserError(f'{source} holds {value.dtype}, not numbers.') from None
  if not np.isfinite(value).all():
    bad = np.argwhere(~np.isfinite(value))[0].tolist()
    raise UserError(f'{source} is not finite at {bad}: a prompt cannot start there.')
  return jnp.asarray(value)


def _table(init: Initializer, embedding: Any, shape: Shape) -> Any:
  """The embedding table, if there is one and its rows are as wide as the prompt's."""
  name = type(init).__name__
  if embedding is None:
    raise UserError(
      f'{name} reads the embedding table; initialise the prompt with '
      'prompts.initialise.initialise_prompt, which is given one.'
    )
  if embedding.shape[-1] != shape[-1]:
    raise UserError(
      f'{name} copies embedding rows of width {embedding.shape[-1]}, but these rows are '
      f'{shape[-1]} wide (keys and values have heads x head width). '
      'Use Zeros, Uniform or Normal here.'
    )
  return embedding


def _needed(init: Initializer, vocabulary: Vocabulary | None) -> Vocabulary:
  if vocabulary is None:
    raise UserError(
      f'{type(init).__name__} needs the vocabulary of the model, and this model has none. '
      'Give one, or use an initialiser without words, such as MatchedNormal.'
    )
  return vocabulary


def _pieces(encode: Any, text: str) -> np.ndarray:
  """int[pieces] the ids of `text`; a text without any is an error."""
  ids = np.asarray(encode(text), np.int32)
  if not ids.size:
    raise UserError(f'The text {text!r} has no pieces in the vocabulary: nothing to start from.')
  return ids


def _rows(table: Any, ids: Any) -> Array:
  return jnp.take(jnp.asarray(table), jnp.asarray(ids), axis=0).astype(jnp.float32)


def _then_fallback(
  rows: Array,
  fallback: Initializer,
  key: Array,
  shape: Shape,
  embedding: Any,
  vocabulary: Vocabulary | None,
) -> Array:
  """`rows` [n, H] in front of every prompt of `shape` (..., P, H), the rest from `fallback`."""
  *lead, p, h = shape
  rows = jnp.broadcast_to(rows, (*lead, *rows.shape))
  rest = p - rows.shape[-2]
  if not rest:
    return rows
  return jnp.concatenate([rows, fallback(key, (*lead, rest, h), embedding, vocabulary)], axis=-2)
