"""What a run records of its model."""

import numpy as np

from prompt_jax.models.t5.layers import quantise
from prompt_jax.runs.setup import parameters_of


def test_a_model_has_as_many_weights_in_int8():
  tree = {'a': {'kernel': np.ones((4, 6), np.float32)}, 'scale': np.ones(5, np.float32)}
  assert parameters_of(tree) == 29
  tree['a']['kernel'] = quantise('a/kernel', tree['a']['kernel'])
  assert parameters_of(tree) == 29
