"""Stacking T5X's layers and taking the stack apart again."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from prompt_jax.checkpoints.leaf import of_array
from prompt_jax.checkpoints.tree import stack_leaves, unstack_layers
from prompt_jax.errors import UserError
from tests.shared import facts


def stack(tree: dict) -> dict:
  """`stack_leaves` on arrays in memory."""
  flat = traverse_util.flatten_dict(tree, sep='/')
  leaves = stack_leaves({path: of_array(x, path) for path, x in flat.items()}, 'here')
  return traverse_util.unflatten_dict({p: x.read() for p, x in leaves.items()}, sep='/')


def layers(count: int) -> dict:
  """Twelve layers sort as 0, 1, 10, 11, 2 by name: the order must be by number."""
  rng = np.random.default_rng(0)
  layer = lambda: {'mlp': {'wo': {'kernel': rng.normal(size=(3, 2))}}, 'norm': rng.normal(size=2)}
  return {'encoder': {f'layers_{i}': layer() for i in range(count)}, 'table': rng.normal(size=4)}


def test_stack_is_in_the_order_of_numbers_and_back():
  tree = layers(12)
  stacked = stack(tree)
  assert sorted(stacked['encoder']) == ['layers']
  kernel = stacked['encoder']['layers']['mlp']['wo']['kernel']
  assert kernel.shape == (12, 3, 2)
  for i in range(12):
    np.testing.assert_array_equal(kernel[i], tree['encoder'][f'layers_{i}']['mlp']['wo']['kernel'])
  back = unstack_layers(stacked)
  assert jax.tree.structure(back) == jax.tree.structure(tree)
  jax.tree.map(np.testing.assert_array_equal, back, tree)


def test_dtype_is_kept():
  tree = {'encoder': {f'layers_{i}': {'x': np.full(2, i, np.float16)} for i in range(2)}}
  assert stack(tree)['encoder']['layers']['x'].dtype == np.float16
  assert unstack_layers(stack(tree))['encoder']['layers_1']['x'].dtype == np.float16


def test_faults_are_named():
  tree = layers(3)
  del tree['encoder']['layers_1']
  with pytest.raises(UserError, match=facts('encoder/layers_1/mlp/wo/kernel', 'encoder/lay')):
    stack(tree)
  tree = layers(2)
  tree['encoder']['layers_1']['mlp']['wo']['kernel'] = np.zeros((3, 3))
  with pytest.raises(UserError, match=facts('layers/mlp/wo/kernel', '(3, 2)', '(3, 3)')):
    stack(tree)
  tree = layers(2)
  tree['encoder']['layers_1']['bias'] = np.zeros(2)
  with pytest.raises(UserError, match='encoder/layers_0/bias'):
    stack(tree)
  with pytest.raises(UserError, match=r'\[2, 3\]'):
    unstack_layers({'layers': {'x': np.zeros(2), 'y': np.zeros(3)}})
