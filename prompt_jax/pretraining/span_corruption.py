"""The two stages that a model needs before prompt tuning works, as functions on token ids.

Span corruption (Raffel et al. 2020, section 3.1.4) teaches the language; prefix language modelling
(the "LM adaptation" of Lester et al. 2021, section 3.2) teaches the decoder to write natural text.
Both are pure: a numpy Generator and a chunk of text in, two sequences out.
"""

from collections.abc import Sequence

import numpy as np


def noise_counts(length: int, density: float, mean_span: float) -> tuple[int, int]:
  """Number of masked tokens and of masked spans in a chunk of `length` tokens."""
  noise = int(np.clip(round(length * density), 1, length - 1))
  spans = max(1, min(round(noise / mean_span), noise, length - noise))
  return noise, spans


def corrupted_lengths(length: int, density: float, mean_span: float) -> tuple[int, int]:
  """Lengths of inputs and targets, EOS included, that a chunk of `length` tokens becomes."""
  noise, spans = noise_counts(length, density, mean_span)
  return length - noise + spans + 1, noise + spans + 1


def chunk_length(inputs: int, density: float, mean_span: float) -> int:
  """The longest chunk whose corrupted input has at most `inputs` tokens."""
  length = 2
  while corrupted_lengths(length + 1, density, mean_span)[0] <= inputs:
    length += 1
  return length


def longest_inputs(sentinels: int, density: float, mean_span: float) -> int:
  """The most input tokens, EOS included, whose spans get a sentinel each."""
  length = 2
  while noise_counts(length + 1, density, mean_span)[1] <= sentinels:
    length += 1
  return corrupted_lengths(length, density, mean_span)[0]


def _segment_lengths(rng: np.random.Generator, total: int, parts: int) -> np.ndarray:
  """`total` items cut at random into `parts` non-empty segments."""
  cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1
  return np.diff(np.concatenate([[0], cuts, [total]]))


def corrupt_spans(
  rng: np.random.Generator,
  chunk: np.ndarray,
  *,
  sentinels: Sequence[int],
  eos: int,
  density: float = 0.15,
  mean_span: float = 3.0,
) -> tuple[np.ndarray, np.ndarray]:
  """Replaces random spans by sentinels; the targets are the spans behind their sentinels.

  As in T5 the number of masked tokens and spans is the same for every chunk of one length, a
  chunk begins with unmasked tokens, and the spans have the sentinels in their order.

  Args:
    rng: the source of randomness.
    chunk: int[n] token ids, n >= 2.
    sentinels: ids of <extra_id_0>, <extra_id_1>, ...; at least as many as spans.
    eos: id that ends both sequences.
    density: fraction of tokens masked.
    mean_span: mean length of a masked span.

  Returns:
    int32[a] inputs and int32[b] targets; a and b are `corrupted_lengths(n)`.
  """
  noise, spans = noise_counts(len(chunk), density, mean_span)
  kept = _segment_lengths(rng, len(chunk) - noise, spans)
  masked = _segment_lengths(rng, noise, spans)
  inputs, targets, at = [], [], 0
  for i in range(spans):
    sentinel = [sentinels[i]]
    inputs += [chunk[at : at + kept[i]], sentinel]
    at += kept[i]
    targets += [sentinel, chunk[at : at + masked[i]]]
    at += masked[i]
  return (
    np.concatenate([*inputs, [eos]]).astype(np.int32),
    np.concatenate([*targets, [eos]]).astype(np.int32),
  )


def prefix_lm(
  rng: np.random.Generator, chunk: np.ndarray, inputs: int, targets: int, *, eos: int
) -> tuple[np.ndarray, np.ndarray]:
  """Cuts a chunk at a random place: the decoder continues what the encoder has read.

  Args:
    rng: the source of randomness.
    chunk: int[n] token ids, n >= 2.
    inputs: the most input tokens, EOS included, >= 2.
    targets: the most target tokens; what is beyond is left out, and then so is EOS.
    eos: id that ends both sequences.

  Returns:
    int32[k + 1] inputs and int32[<= targets] targets, k uniform from 1 to less than n and `inputs`.
  """
  k = int(rng.integers(1, min(len(chunk), inputs)))
  prefix, continuation = np.append(chunk[:k], eos), np.append(chunk[k:], eos)
  return prefix.astype(np.int32), continuation[:targets].astype(np.int32)
