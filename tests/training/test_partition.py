"""Split and merge: the one definition of what trains."""

import jax
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.training import objective
from tests.shared import facts

PARAMS = {
  'backbone': {'encoder': {'scale': np.ones(3), 'bias': np.zeros(3)}, 'embed': np.ones((4, 2))},
  'prompt': {'prompt': np.ones((5, 2))},
}


def test_merge_undoes_split_for_any_pattern():
  for patterns in (('prompt/.*',), ('.*',), ('.*/bias', 'prompt/prompt')):
    trainable, frozen = objective.split(PARAMS, patterns)
    merged = objective.merge(trainable, frozen)
    assert jax.tree.structure(merged) == jax.tree.structure(PARAMS)
    assert objective.count(trainable) + objective.count(frozen) == objective.count(PARAMS) == 24


def test_split_takes_whole_path_matches_only():
  trainable, frozen = objective.split(PARAMS, ('.*/bias',))
  assert list(trainable) == ['backbone']
  assert list(trainable['backbone']['encoder']) == ['bias']
  assert 'prompt' in frozen
  with pytest.raises(UserError, match='bias'):
    objective.split(PARAMS, ('bias',))  # A part of the path is not enough.


def test_default_is_the_prompt():
  trainable, _ = objective.split(PARAMS)
  assert trainable == {'prompt': PARAMS['prompt']}


def test_a_pattern_that_matches_nothing_lists_the_paths():
  with pytest.raises(UserError, match=r"'promt/\.\*'[\s\S]*backbone/embed[\s\S]*prompt/prompt"):
    objective.split(PARAMS, ('prompt/.*', 'promt/.*'))


def test_bad_patterns_are_user_errors():
  with pytest.raises(UserError, match='regular expression'):
    objective.split(PARAMS, ('prompt/(',))
  with pytest.raises(UserError, match=facts('list', 'regular expression')):
    objective.split(PARAMS, 'prompt/.*')


def test_merge_refuses_a_path_on_both_sides():
  with pytest.raises(ValueError, match='prompt/prompt'):
    objective.merge(PARAMS, {'prompt': {'prompt': np.ones(1)}})
