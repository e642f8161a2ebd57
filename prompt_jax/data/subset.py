"""Wrappers of tasks: few-shot training sets, and label noise."""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from prompt_jax.data.example import Example, Lengths, Loader, Task, encode_labels
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError


def few_shot(task: Task, shots: int, seed: int = 0) -> Task:
  """A task with `shots` examples of each class to train on, and as many others to select by.

  Both are drawn from the training split (Gao et al. 2021, arXiv:2012.15723, section 3: a larger
  validation set would be more labels), in the order of a hash, so the order of the file does not
  matter. The test split stays; where its answers are not known, or there is none, the validation
  split of the task takes its place. Without labels all examples are one class.

  Args:
    task: with a training split.
    shots: examples of each class.
    seed: of the draw; customary are 0 to 4.

  Raises:
    UserError: no such number, or a class of too few examples (when the split is loaded).
  """
  if shots < 1:
    raise UserError(f'The number of shots is {shots}; it must be at least 1.')
  _check_train(task, 'few shots')

  def drawn(part: int) -> Loader:
    def load(vocabulary: Vocabulary, lengths: Lengths) -> list[Example]:
      return _draw(task, task.load('train', vocabulary, lengths), shots, seed)[part]

    return load

  def test(vocabulary: Vocabulary, lengths: Lengths) -> Sequence[Example]:
    for split in ('test', 'validation'):
      if split in task.splits:
        examples = task.load(split, vocabulary, lengths)
        if task.has_answers(examples):
          return examples
    raise UserError(f'The task {task.name!r} has no examples to evaluate few shots on.')

  splits: dict[str, Loader] = {'train': drawn(0), 'validation': drawn(1)}
  if {'test', 'validation'} & task.splits.keys():
    splits['test'] = test
  about = f'{shots} shots of each class, draw {seed}, of: {task.about}'
  return dataclasses.replace(task, splits=splits, about=about)


def noisy_labels(task: Task, share: float, seed: int = 0) -> Task:
  """A task in whose training split a share of the labels is another one, drawn at random.

  The true label stays in the field "true_label". Other splits are as they were.

  Args:
    task: with labels and a training split.
    share: of the training examples, 0 to 1; rounded to whole examples.
    seed: of the draw.

  Raises:
    UserError: a task without labels, or no share.
  """
  if not 0 <= share <= 1:
    raise UserError(f'The share of wrong labels is {share}; it must be from 0 to 1.')
  _check_train(task, 'wrong labels')
  if task.labels is None or len(task.labels) < 2:
    raise UserError(f'The task {task.name!r} has no labels, so none can be made wrong.')
  labels = task.labels

  def load(vocabulary: Vocabulary, lengths: Lengths) -> list[Example]:
    examples = list(task.load('train', vocabulary, lengths))
    ids = encode_labels(labels, vocabulary, lengths.targets)
    rng = np.random.Generator(np.random.Philox(key=[seed, len(examples)]))
    for i in rng.permutation(len(examples))[: round(share * len(examples))]:
      true = examples[i].label
      if true is None:
        raise UserError(f'An example of {task.name!r} has no label that could be made wrong.')
      label = int(rng.integers(len(labels) - 1))
      label += label >= true
      examples[i] = dataclasses.replace(
        examples[i],
        label=label,
        targets=ids[label],
        targets_text=labels[label],
        fields={**examples[i].fields, 'true_label': true},
      )
    return examples

  about = f'{100 * share:g} % wrong labels, draw {seed}, in the training split of: {task.about}'
  return dataclasses.replace(task, splits={**task.splits, 'train': load}, about=about)


def _check_train(task: Task, what: str) -> None:
  if 'train' not in task.splits:
    raise UserError(f'The task {task.name!r} has no training split; {what} needs one.')
  if task.mixing is not None:
    raise UserError(f'{task.name!r} is several tasks; {what} are of one task each.')


def _draw(
  task: Task, examples: Sequence[Example], shots: int, seed: int
) -> tuple[list[Example], list[Example]]:
  """(to train on, to select by), each in the order of the classes."""
  classes: Mapping[int | None, list[Example]] = collections.defaultdict(list)
  for example in examples:
    classes[example.label].append(example)
  parts: tuple[list[Example], list[Example]] = ([], [])
  for label in sorted(classes, key=lambda x: -1 if x is None else x):
    # Equal inputs fall on one side, or selecting would be on what was learned.
    ordered = sorted(classes[label], key=lambda e: _hash(e, seed))
    distinct = list({e.inputs_text: e for e in reversed(ordered)}.values())[::-1]
    if len(distinct) < 2 * shots:
      name = '' if label is None or task.labels is None else f' of {task.labels[label]!r}'
      raise UserError(
        f'{task.name!r} has {len(distinct)} different training examples{name}; {shots} shots to '
        f'train on and {shots} to select by need {2 * shots}. Ask for fewer.'
      )
    parts[0].extend(distinct[:shots])
    parts[1].extend(distinct[shots : 2 * shots])
  return parts


def _hash(example: Example, seed: int) -> bytes:
  text = f'{seed}\0{example.inputs_text}\0{example.targets_text}'
  return hashlib.sha256(text.encode()).digest()
