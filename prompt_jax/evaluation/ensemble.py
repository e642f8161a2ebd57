"""Several prompts as one: they vote (Lester et al. 2021, section 6)."""

import collections
import dataclasses
from collections.abc import Sequence

from prompt_jax.evaluation.evaluator import Prediction


def vote(members: Sequence[Sequence[Prediction]]) -> list[Prediction]:
  """The answer that most members gave to each example.

  Args:
    members: of each member its predictions, in the order of the examples.

  Returns:
    Of each example the prediction of the first member that gave the winning answer; of answers
    with equal votes the earliest member's wins. `scores` are the votes of each answer, `confidence`
    the winner's share of them.
  """
  return [_voted(answers) for answers in zip(*members, strict=True)]


def _voted(answers: Sequence[Prediction]) -> Prediction:
  votes = collections.Counter(a.prediction for a in answers)  # in the order of members
  winner = max(votes, key=lambda text: votes[text])  # the first of equals
  chosen = next(a for a in answers if a.prediction == winner)
  return dataclasses.replace(
    chosen,
    scores={text: float(n) for text, n in votes.items()},
    confidence=votes[winner] / len(answers),
  )
