"""Batches in parts."""

import jax.numpy as jnp
import numpy as np

from prompt_jax.stacking import map_in_parts, parts_for_caches


def test_a_cpu_takes_a_batch_in_parts_of_512_tokens_or_more():
  assert [parts_for_caches(32, width) for width in (8, 16, 64, 512)] == [1, 1, 4, 32]
  assert parts_for_caches(30, 100) == 5
  assert parts_for_caches(7, 100) == 1


def test_parts_of_rows_are_the_rows_again():
  rows = np.arange(24.0).reshape(6, 4)

  def call(part):
    tokens, nothing = part
    assert tokens.shape == (2, 4)
    assert nothing is None
    return jnp.cumsum(tokens, axis=1), tokens[:, 0]

  sums, firsts = map_in_parts(call, (rows, None), 3)
  np.testing.assert_array_equal(sums, np.cumsum(rows, axis=1))
  np.testing.assert_array_equal(firsts, rows[:, 0])
