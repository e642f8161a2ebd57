"""Ensembles of prompts: a vote (Lester et al. 2021, section 6), or mean probabilities."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from prompt_jax.evaluation.predictions import Prediction


def vote(members: Sequence[Sequence[Prediction]]) -> list[Prediction]:
  """The answer that most members gave to each example.

  Args:
    members: the predictions of each member, in the order of the examples.

  Returns:
    For each example the prediction of the first member that gave the winning answer; ties go to
    the earliest member. `scores` are the votes of each answer, `confidence` the winner's share.
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


def average(members: Sequence[Sequence[Prediction]]) -> list[Prediction]:
  """The label whose probability, averaged over members, is the greatest.

  Args:
    members: the predictions of each member by ranking, in the order of the examples.

  Returns:
    A prediction for each example; `scores` are the logarithms of the mean probabilities, and of
    equal ones the first label wins.
  """
  return [_averaged(answers) for answers in zip(*members, strict=True)]


def _averaged(answers: Sequence[Prediction]) -> Prediction:
  labels = list(answers[0].scores)
  each = softmax([[a.scores[label] for label in labels] for a in answers], axis=-1)
  mean = each.mean(axis=0)
  best = int(mean.argmax())
  known = answers[0].correct is not None
  # A label with probability 0 in all members gets a finite score too, so that JSON can hold it.
  scores = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
  return dataclasses.replace(
    answers[0],
    prediction=labels[best],
    correct=labels[best] == answers[0].target if known else None,
    scores=dict(zip(labels, scores.tolist(), strict=True)),
    confidence=float(mean[best]),
  )
