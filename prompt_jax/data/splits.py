"""Splits of a data set: how they are drawn, which examples judge a prompt, what a model reads."""

import collections
import hashlib
import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from prompt_jax.data.example import Example, Lengths, Task
from prompt_jax.data.vocabulary import Vocabulary

SHARE = 0.2  # of the time of training that evaluations may take
LEAST = 100  # fewer examples would choose by chance
BACKWARD = 2.0  # a training step in forward passes: the backward one of a frozen model is as long
STEPWISE = 4.0  # a token that is decoded by itself takes as long as so many that are read at once
MEASURED = 1000  # examples whose mean length stands for that of all


def judges(
  train: Sequence[Example],
  validation: Sequence[Example],
  task: Task,
  *,
  given: int | None,
  eval_every: int,
  batch_size: int,
  target_length: int,
) -> Sequence[Example]:
  """The validation examples of every evaluation during a run: a fixed sample, or all.

  Args:
    train: what is trained on.
    validation: what may be drawn.
    task: of both; each of its parts is drawn from alike.
    given: how many; None for so many that evaluating takes about `SHARE` of the time of training by
      the number of tokens that both compute, but at least `LEAST`.
    eval_every: steps between evaluations; 0 for one at the end, which takes all.
    batch_size: examples of a step.
    target_length: most tokens that are decoded.
  """
  most = given
  if most is None:
    if eval_every == 0:
      return validation
    trained = BACKWARD * _mean_tokens(train)
    looked_at = sample(validation, MEASURED)
    judged = float(np.mean([_evaluated(e, task, target_length) for e in looked_at]))
    most = max(LEAST, math.floor(SHARE * eval_every * batch_size * trained / judged))
  return _drawn(validation, most)


def _mean_tokens(examples: Sequence[Example]) -> float:
  return float(np.mean([len(e.inputs) + len(e.targets) for e in sample(examples, MEASURED)]))


def _evaluated(example: Example, task: Task, target_length: int) -> float:
  """Tokens that evaluating an example computes."""
  part = next((p for p in task.parts if p.name == example.task), task)
  if part.labels is None:
    return len(example.inputs) + STEPWISE * target_length
  return len(example.inputs) + len(part.labels) * len(example.targets)


def _drawn(examples: Sequence[Example], most: int) -> Sequence[Example]:
  """At most about `most`, as many of each task, in their order; groups are drawn whole."""
  if len(examples) <= most:
    return examples
  tasks: dict[str, dict[object, list[int]]] = {}
  for i, e in enumerate(examples):
    group = e.fields.get('group')
    tasks.setdefault(e.task, {}).setdefault(('row', i) if group is None else group, []).append(i)
  chosen: list[int] = []
  for number, groups in enumerate(tasks.values()):
    units, room = list(groups.values()), -(-most // len(tasks))
    order = np.random.Generator(np.random.Philox(key=[number, len(units)])).permutation(len(units))
    for k in order:
      if room <= 0:
        break
      chosen += units[k]
      room -= len(units[k])
  return [examples[i] for i in sorted(chosen)]


def held_out(
  groups: Sequence[Hashable],
  classes: Sequence[Hashable],
  fractions: Mapping[str, float],
  seed: int,
  rest: str = 'train',
) -> list[str]:
  """The split of every row.

  Rows of one group (the same text, the same file) fall on the same side, so that nothing is
  learned by heart and then asked. Groups are drawn class by class in the order of a hash, so each
  class keeps its share: a split gets groups of a class up to its fraction of the rows, passing over
  those that are too large, and at least one group while another stays for `rest`.

  Args:
    groups: what may not be torn apart, one a row.
    classes: the label of each row (all None without labels); a group counts for the class of its
      first row.
    fractions: split name -> share of the rows of each class, in the order of drawing.
    seed: another seed, another draw.
    rest: the split of what is not drawn.

  Returns:
    A split name for each row.
  """
  class_of: dict[Hashable, Hashable] = {}
  for group, label in zip(groups, classes, strict=True):
    class_of.setdefault(group, label)
  size = collections.Counter(groups)
  in_class = collections.defaultdict(list)
  for group in sorted(class_of, key=lambda group: _hash(group, seed)):
    in_class[class_of[group]].append(group)
  where: dict[Hashable, str] = {}
  for waiting in in_class.values():
    total = sum(size[group] for group in waiting)
    wanted = [split for split, fraction in fractions.items() if fraction > 0]
    for number, split in enumerate(wanted):
      later = len(wanted) - number  # the other splits, and the rest
      drawn = _draw(waiting, size, round(fractions[split] * total), later)
      where |= dict.fromkeys(drawn, split)
      waiting = [group for group in waiting if group not in where]
  return [where.get(group, rest) for group in groups]


def _draw(
  waiting: Sequence[Hashable], size: Mapping[Hashable, int], rows: int, later: int
) -> list[Hashable]:
  """Groups in their order that fit into `rows`, but for `later` that are left to others; the
  smallest if none does; never all."""
  drawn: list[Hashable] = []
  for group in waiting:
    if size[group] <= rows and len(drawn) < len(waiting) - later:
      drawn.append(group)
      rows -= size[group]
  if not drawn and len(waiting) > 1:
    drawn.append(min(waiting, key=lambda group: size[group]))
  return drawn


def _hash(group: Hashable, seed: int) -> bytes:
  return hashlib.sha256(f'{seed}\0{group}'.encode()).digest()


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
