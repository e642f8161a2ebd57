"""How many validation examples judge a prompt while it trains, and which."""

import math
from collections.abc import Sequence

import numpy as np

from prompt_jax.data.example import Example, Task
from prompt_jax.data.split_statistics import sample

SHARE = 0.2  # of the time of training that evaluations may take
LEAST = 100  # fewer examples would choose by chance
BACKWARD = 2.0  # a training step in forward passes: the backward one of a frozen model is as long
STEPWISE = 4.0  # a token that is decoded by itself takes as long as so many that are read at once
LOOKED_AT = 1000


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
    looked_at = sample(validation, LOOKED_AT)
    judged = float(np.mean([_evaluated(e, task, target_length) for e in looked_at]))
    most = max(LEAST, math.floor(SHARE * eval_every * batch_size * trained / judged))
  return _drawn(validation, most)


def _mean_tokens(examples: Sequence[Example]) -> float:
  return float(np.mean([len(e.inputs) + len(e.targets) for e in sample(examples, LOOKED_AT)]))


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
