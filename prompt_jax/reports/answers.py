"""Predictions of runs: confusion matrices, and the mistakes with the highest confidence."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prompt_jax.checkpoints.on_disk import damaged
from prompt_jax.reports.runs import Run, Unreadable

MOST_LABELS = 20  # of a readable confusion matrix
OTHER = '(no label)'  # a prediction that is not one of the labels


@dataclasses.dataclass(frozen=True)
class Answer:
  """One line of a predictions file.

  Attributes:
    input: the text.
    target: the correct answer.
    prediction: the model's.
    correct: whether they agree; None if the correct answer is not known.
    confidence: probability of the prediction, among the labels where these were ranked; None
      without scores.
    labels: that were ranked; () for decoded text.
    task: which of several tasks.
  """

  input: str
  target: str
  prediction: str
  correct: bool | None
  confidence: float | None
  labels: tuple[str, ...]
  task: str | None


@dataclasses.dataclass(frozen=True)
class Confusion:
  """Counts of answers.

  Attributes:
    tasks: whose answers; () for a run of one task.
    labels: correct answers, in order; predictions have OTHER after them if needed.
    counts: [correct answer][prediction].
  """

  tasks: tuple[str, ...]
  labels: tuple[str, ...]
  counts: tuple[tuple[int, ...], ...]


def read(path: pathlib.Path, unreadable: list[Unreadable]) -> list[Answer]:
  """The answers in a file; lines that cannot be read are counted in `unreadable`."""
  answers, bad = [], 0
  if damage := damaged(path.parent, path.name):
    unreadable.append(Unreadable(path, damage))
    return []
  try:
    lines = path.read_text('utf-8').split('\n')
  except (OSError, UnicodeDecodeError) as e:
    unreadable.append(Unreadable(path, str(e)))
    return []
  for line in filter(None, lines):
    try:
      answers.append(_answer(json.loads(line)))
    except (ValueError, KeyError, TypeError, AttributeError):
      bad += 1
  if bad:
    unreadable.append(Unreadable(path, f'{bad} of {bad + len(answers)} lines are not predictions'))
  return answers


def _answer(row: Any) -> Answer:
  scores = {str(name): float(v) for name, v in (row.get('scores') or {}).items()}
  prediction = str(row['prediction'])
  ranked = len(scores) > 1 and prediction in scores
  return Answer(
    str(row['input']),
    str(row['target']),
    prediction,
    row['correct'],
    _confidence(row, scores, prediction if ranked else 'log_prob'),
    tuple(scores) if ranked else (),
    row.get('task'),
  )


def _confidence(row: Mapping[str, Any], scores: Mapping[str, float], name: str) -> float | None:
  """The confidence in the file, else the probability computed from the log-probabilities."""
  said = row.get('confidence')
  if isinstance(said, int | float):
    return float(said)
  if name not in scores or not math.isfinite(scores[name]):
    return None
  if name == 'log_prob' and len(scores) == 1:
    return math.exp(min(scores[name], 0.0))
  most = max(scores.values())
  return math.exp(scores[name] - most) / sum(math.exp(v - most) for v in scores.values())


def confusions(run: Run, answers: Sequence[Answer]) -> list[Confusion]:
  """A matrix for each set of at most MOST_LABELS labels in a run; none for free text."""
  groups: dict[tuple[str, ...], list[Answer]] = {}
  for answer in answers:
    labels = answer.labels or (run.labels or ())
    if labels and answer.correct is not None:
      groups.setdefault(labels, []).append(answer)
  return [_confusion(labels, found) for labels, found in groups.items()
          if len(labels) <= MOST_LABELS]  # fmt: skip


def _confusion(labels: tuple[str, ...], answers: Sequence[Answer]) -> Confusion:
  of = {label: i for i, label in enumerate(labels)}
  counts = [[0] * (len(labels) + 1) for _ in labels]
  for answer in answers:
    if answer.target in of:
      counts[of[answer.target]][of.get(answer.prediction.strip(), len(labels))] += 1
  if not any(row[-1] for row in counts):
    counts = [row[:-1] for row in counts]
  tasks = tuple(dict.fromkeys(a.task for a in answers if a.task is not None))
  return Confusion(tasks, labels, tuple(map(tuple, counts)))


def worst(answers: Iterable[Answer], count: int) -> list[Answer]:
  """The wrong answers with the highest confidence; one that several seeds gave appears once."""
  wrong = [a for a in answers if a.correct is False and a.confidence is not None]
  wrong.sort(key=lambda a: -(a.confidence or 0.0))
  once = {(a.task, a.input, a.prediction): a for a in reversed(wrong)}
  return sorted(once.values(), key=lambda a: -(a.confidence or 0.0))[:count]
