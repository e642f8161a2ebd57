"""Mixtures of tasks: how often each task is trained on, as numbers and as an order of examples.

An epoch of a mixture has a fixed number of examples of each task. Task k goes through its own
examples in one random order after another, across epochs, so that none is seen twice before all
were seen once. All of it is a pure function of (seed, epoch).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from prompt_jax.data.example import Example, Lengths, Loader, Task
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError, unknown

How = Literal['proportional', 'equal', 'rates']
HOWS = ('proportional', 'equal', 'rates')


@dataclasses.dataclass(frozen=True)
class Mixing:
  """How often each task is trained on.

  Attributes:
    how: "proportional" to the number of training examples (T5, section 3.5.2), "equal", or
      "rates".
    cap: with "proportional", no task counts as more examples; T5 and SPoT take 2^19.
    temperature: with "proportional", the shares are raised to 1 / temperature and made to sum to
      1 again: 1 changes nothing, a high one makes all tasks nearly equal.
    rates: with "rates", task name -> a positive number; only their ratios matter.
  """

  how: How = 'proportional'
  cap: int | None = None
  temperature: float = 1.0
  rates: Mapping[str, float] | None = None

  def __post_init__(self):
    if self.how not in HOWS:
      raise UserError(f'The mixing is {self.how!r}; expected one of {", ".join(HOWS)}.')
    if (self.rates is not None) != (self.how == 'rates'):
      raise UserError("Rates of tasks and the mixing 'rates' go together; give both or neither.")
    if self.how != 'proportional' and (self.cap is not None or self.temperature != 1):
      raise UserError("A cap and a temperature belong to the mixing 'proportional'.")
    if self.cap is not None and self.cap < 1:
      raise UserError(f'The cap is {self.cap}; it must be at least 1 example.')
    if not self.temperature > 0:
      raise UserError(f'The temperature is {self.temperature}; it must be above 0.')
    for name, rate in (self.rates or {}).items():
      if not isinstance(rate, int | float) or not 0 < rate < float('inf'):
        raise UserError(f'The rate of {name!r} is {rate!r}; it must be a positive number.')


def shares(sizes: Mapping[str, int], mixing: Mixing) -> dict[str, float]:
  """The share of each task in the examples of a mixture; they sum to 1.

  Args:
    sizes: task name -> number of its training examples.
    mixing: how often each is trained on.

  Raises:
    UserError: rates of other tasks than these, or a task without examples.
  """
  empty = [name for name, size in sizes.items() if not size]
  if empty:
    raise UserError(
      f'Of {", ".join(sizes)}, {", ".join(empty)} can only be evaluated: no training examples were '
      'found. Leave it out of the mixture.'
    )
  if mixing.rates is not None:
    for name in mixing.rates:
      if name not in sizes:
        raise unknown('task among the rates', name, sizes)
    missing = [name for name in sizes if name not in mixing.rates]
    if missing:
      raise UserError(f'The rates lack {", ".join(missing)}; give a rate for every task.')
    weights = {name: float(mixing.rates[name]) for name in sizes}
  elif mixing.how == 'equal':
    weights = dict.fromkeys(sizes, 1.0)
  else:
    # Relative to the largest, so that no temperature leads to numbers out of range.
    cap = min(mixing.cap or math.inf, max(sizes.values()))
    weights = {n: min(size / cap, 1) ** (1 / mixing.temperature) for n, size in sizes.items()}
  total = sum(weights.values())
  return {name: weight / total for name, weight in weights.items()}


def quotas(sizes: Mapping[str, int], mixing: Mixing) -> dict[str, int]:
  """How many examples of each task an epoch has: as many in all as there are, each at least one.

  Args:
    sizes: as in `shares`.
    mixing: as in `shares`.
  """
  total = sum(sizes.values())
  found = shares(sizes, mixing)
  whole = {name: max(1, int(share * total)) for name, share in found.items()}
  # What rounding down has left goes to those that lost most by it.
  rest = sorted(found, key=lambda name: whole[name] - found[name] * total)
  for name in rest[: max(0, total - sum(whole.values()))]:
    whole[name] += 1
  return whole


def order(
  tasks: Sequence[str] | np.ndarray, quota: Mapping[str, int], seed: int, epoch: int
) -> np.ndarray:
  """int64[sum of quota] indices of the examples of one epoch, in random order.

  Args:
    tasks: the task of each example.
    quota: task -> examples of it in an epoch.
    seed: of everything random.
    epoch: counted from 0.
  """
  names = np.asarray(tasks)
  chosen = []
  for number, (name, count) in enumerate(quota.items()):
    (members,) = np.nonzero(names == name)
    first, last = epoch * count, (epoch + 1) * count
    for turn in range(first // len(members), (last - 1) // len(members) + 1):
      rng = np.random.Generator(np.random.Philox(key=[seed, turn], counter=[0, 0, number, 1]))
      start = turn * len(members)
      permuted = members[rng.permutation(len(members))]
      chosen.append(permuted[max(first - start, 0) : last - start])
  joined = np.concatenate(chosen)
  rng = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, 2]))
  return joined[rng.permutation(len(joined))]


def mixture(tasks: Sequence[Task], mixing: Mixing) -> Task:
  """Several tasks as one, with them as its `parts`; each is scored by its own metrics.

  A split holds the examples of every task that has it; evaluation splits only those of tasks whose
  answers are known. A task without a test split is evaluated on its validation split.

  Raises:
    UserError: fewer than two tasks, or two of one name.
  """
  names = [task.name for task in tasks]
  if len(set(names)) < len(names) or len(names) < 2:
    raise UserError(f'A mixture is of two or more different tasks; got {", ".join(names)}.')

  nested = [task.name for task in tasks if task.parts]
  if nested:
    raise UserError(f'{nested[0]} is several tasks already; a mixture is of single ones.')

  def loader(split: str) -> Loader:
    if split == 'test':
      return evaluation_loader(tasks)

    def load(vocabulary: Vocabulary, lengths: Lengths) -> list[Example]:
      found: list[Example] = []
      for task in tasks:
        if split in task.splits:
          examples = task.load(split, vocabulary, lengths)
          found += examples if split == 'train' or task.has_answers(examples) else []
      return found

    return load

  splits = dict.fromkeys(split for task in tasks for split in task.splits)
  labels = {task.labels for task in tasks}
  return Task(
    name='+'.join(names),
    splits={split: loader(split) for split in splits},
    labels=tasks[0].labels if len(labels) == 1 else None,
    metrics=tasks[0].metrics,
    about=f'{mixing.how} mixture of {", ".join(names)}',
    parts=tuple(tasks),
    mixing=mixing,
  )


def evaluation_loader(tasks: Sequence[Task]) -> Loader:
  """The test split of each task, or its validation split where no answers are known."""

  def load(vocabulary: Vocabulary, lengths: Lengths) -> list[Example]:
    found: list[Example] = []
    for task in tasks:
      for split in ('test', 'validation'):
        if split in task.splits:
          examples = task.load(split, vocabulary, lengths)
          if task.has_answers(examples):
            found += examples
            break
    return found

  return load
