"""Prompts that vote."""

import pytest

from prompt_jax.evaluation.ensemble import vote
from prompt_jax.evaluation.predictions import Prediction


def said(*answers):
  return [Prediction('in', 'yes', answer, answer == 'yes', {'no': -1.0}) for answer in answers]


def test_most_votes_win_and_of_equals_the_earliest_member():
  members = [said('no', 'no', 'no'), said('yes', 'yes', 'perhaps'), said('yes', 'no', 'yes')]
  voted = vote(members)
  assert [p.prediction for p in voted] == ['yes', 'no', 'no']
  assert [p.correct for p in voted] == [True, False, False]
  assert voted[0].scores == {'no': 1.0, 'yes': 2.0}
  assert [p.confidence for p in voted] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
  assert voted[2].scores == {'no': 1.0, 'perhaps': 1.0, 'yes': 1.0}
