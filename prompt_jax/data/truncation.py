"""How much of its text a model reads: the default length, and what is cut."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prompt_jax.data.example import Example, Lengths
from prompt_jax.data.split_statistics import sample
from prompt_jax.data.vocabulary import Vocabulary

LONGEST = 512  # tokens of an input where no length is given, as in T5
STEP = 64  # the default length is a multiple of it, so that a text that is a little longer fits
# Cut examples whose whole length is looked up; the mean of so many is near that of all.
LOOKED_AT = 2000


def default_length(splits: Iterable[Sequence[Example]]) -> int:
  """The input length of a run that gives none.

  The longest input of its splits, rounded up to a multiple of `STEP`, and at most `LONGEST`.

  Args:
    splits: examples that are cut to `LONGEST`.
  """
  longest = max((len(e.inputs) for examples in splits for e in examples), default=1)
  return min(LONGEST, -(-longest // STEP) * STEP)


class Cut(NamedTuple):
  """What is cut of one side of some examples.

  Attributes:
    side: "inputs" or "targets".
    limit: most tokens, the end of the sequence included.
    cut: how many examples are longer.
    of: examples in all.
    lost: share of the tokens that those lose, their mean, 0 to 1.
    longest: tokens of the longest of those looked at.
  """

  side: str
  limit: int
  cut: int
  of: int
  lost: float
  longest: int

  @property
  def share(self) -> float:
    """Of the examples that are cut, 0 to 1."""
    return self.cut / self.of if self.of else 0.0

  def __str__(self) -> str:
    return (
      f'{100 * self.share:.3g} % of the {self.side} ({self.cut:,} of {self.of:,}) are longer than '
      f'{self.limit} tokens and are cut; these lose {100 * self.lost:.0f} % of their tokens on '
      f'average (the longest has {self.longest:,})'
    )


def cut(examples: Sequence[Example], vocabulary: Vocabulary, lengths: Lengths) -> tuple[Cut, Cut]:
  """What is cut of inputs and of targets; only examples that fill a limit are looked at.

  Args:
    examples: tokenised with `vocabulary` and cut to `lengths`.
    vocabulary: of the model.
    lengths: the limits.
  """
  return (
    _cut('inputs', examples, vocabulary, lengths.inputs),
    _cut('targets', examples, vocabulary, lengths.targets),
  )


def _cut(side: str, examples: Sequence[Example], vocabulary: Vocabulary, limit: int) -> Cut:
  full = [e for e in examples if len(getattr(e, side)) >= limit]
  seen = sample(full, LOOKED_AT)
  sizes = np.array([len(vocabulary.encode(getattr(e, f'{side}_text'))) + 1 for e in seen], int)
  long = sizes[sizes > limit]
  if not len(long):
    return Cut(side, limit, 0, len(examples), 0.0, limit)
  count = round(len(full) * len(long) / len(seen))
  return Cut(side, limit, count, len(examples), float(np.mean(1 - limit / long)), int(long.max()))


def report(
  splits: Mapping[str, Sequence[Example]], vocabulary: Vocabulary, lengths: Lengths
) -> tuple[list[str], float]:
  """What to say of the text that a model does not see, and the share of training inputs cut."""
  lines, share = [], 0.0
  for split, examples in splits.items():
    inputs, targets = cut(examples, vocabulary, lengths)
    share = inputs.share if split == 'train' else share
    for side, flag in ((inputs, 'input_length'), (targets, 'target_length')):
      if side.cut:
        lines.append(f'Cut ({split}): {side}; a higher {flag} keeps more')
  return lines, share
