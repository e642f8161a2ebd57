"""Statistics of a split as a model sees it: lengths, truncation, labels, unknown tokens."""

import collections
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from prompt_jax.data.example import Example, Lengths
from prompt_jax.data.vocabulary import Vocabulary

PERCENTILES = (5, 50, 95, 99, 100)


class SplitStatistics(NamedTuple):
  """Statistics of some examples of one split.

  Attributes:
    examples: their number.
    inputs: lengths of the inputs in tokens before truncation, end of sequence included: one
      number for each of PERCENTILES.
    targets: the same of the targets.
    cut_inputs: share of the examples whose inputs are truncated, 0 to 1.
    cut_targets: the same of the targets.
    unknown: share of the tokens of inputs and targets that the vocabulary cannot write.
    labels: label -> number of examples; those without a known label are not counted.
    repeated: examples whose inputs occur earlier in the split.
    seen: examples whose inputs are also in the training split.
  """

  examples: int
  inputs: tuple[int, ...]
  targets: tuple[int, ...]
  cut_inputs: float
  cut_targets: float
  unknown: float
  labels: dict[str, int]
  repeated: int
  seen: int


def sample(examples: Sequence[Example], most: int, seed: int = 0) -> list[Example]:
  """At most `most` examples drawn at random, in their original order."""
  if len(examples) <= most:
    return list(examples)
  rng = np.random.Generator(np.random.Philox(key=[seed, len(examples)]))
  return [examples[i] for i in sorted(rng.permutation(len(examples))[:most])]


def split_statistics(
  examples: Sequence[Example],
  vocabulary: Vocabulary,
  lengths: Lengths,
  train: Collection[str] = (),
) -> SplitStatistics:
  """The statistics of some examples.

  Args:
    examples: of one split, at least one.
    vocabulary: the model's.
    lengths: the most tokens, end of sequence included.
    train: the inputs of the training split, to be looked for here.
  """
  inputs = [vocabulary.encode(e.inputs_text) for e in examples]
  targets = [vocabulary.encode(e.targets_text) for e in examples]
  sizes = [np.array([len(ids) + 1 for ids in side]) for side in (inputs, targets)]
  tokens = sum(len(ids) for ids in (*inputs, *targets))
  unknown = sum(ids.count(vocabulary.unk_id) for ids in (*inputs, *targets))
  labelled = collections.Counter(e.targets_text for e in examples if e.label is not None)
  return SplitStatistics(
    examples=len(examples),
    inputs=_percentiles(sizes[0]),
    targets=_percentiles(sizes[1]),
    cut_inputs=float(np.mean(sizes[0] > lengths.inputs)),
    cut_targets=float(np.mean(sizes[1] > lengths.targets)),
    unknown=unknown / max(tokens, 1),
    labels=dict(labelled.most_common()),
    repeated=len(examples) - len({e.inputs_text for e in examples}),
    seen=sum(e.inputs_text in train for e in examples),
  )


def _percentiles(sizes: np.ndarray) -> tuple[int, ...]:
  """The smallest length that such a share of the examples does not exceed."""
  found = np.percentile(sizes, PERCENTILES, method='inverted_cdf')
  return tuple(int(n) for n in found)
