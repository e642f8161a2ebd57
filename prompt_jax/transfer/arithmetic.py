"""Arithmetic on the parameters of prompts: pure functions on trees of arrays.

Trees are of one structure. What comes out is float32.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax.injections import Injection, Injections

Tree = Any
STACKS = ('encoder', 'decoder', 'cross')


def average(trees: Sequence[Tree], weights: Sequence[float]) -> Tree:
  """sum_k w_k P_k / sum_k w_k: with two trees and w = (1 - t, t) the line through both."""
  return _combined(trees, np.asarray(weights, np.float64) / np.sum(weights))


def add_task_vectors(initial: Tree, trees: Sequence[Tree], weights: Sequence[float]) -> Tree:
  """P_0 + sum_k w_k (P_k - P_0), P_0 the start that all share (task prompt vectors,
  arXiv:2408.01119; task arithmetic, Ilharco et al. 2023, arXiv:2212.04089). A negative weight
  forgets a task."""
  return _combined([initial, *trees], [1 - sum(weights), *weights])


def _combined(trees: Sequence[Tree], weights: Sequence[float] | np.ndarray) -> Tree:
  def of_leaves(*leaves: Any) -> np.ndarray:
    wide = (w * np.asarray(x, np.float64) for w, x in zip(weights, leaves, strict=True))
    return np.asarray(sum(wide), np.float32)

  return jax.tree.map(of_leaves, *trees)


def concatenate(parts: Sequence[Injections]) -> Injections:
  """Rows and keys of several prompts behind each other, in the order given.

  Args:
    parts: plain arrays, each with rows or keys in the same places.
  """

  def joined(stack: str) -> Injection:
    own = [getattr(part, stack) for part in parts]
    return _replaced(own[0], lambda field, axis: np.concatenate(_all(own, field), axis))

  return Injections.of({stack: joined(stack) for stack in STACKS})


def keep(part: Injections, rows: Sequence[int]) -> Injections:
  """Only these rows and keys of a prompt, in the order given; -1 is the last."""

  def kept(stack: str) -> Injection:
    own = getattr(part, stack)
    return _replaced(own, lambda field, axis: np.take(getattr(own, field), rows, axis))

  return Injections.of({stack: kept(stack) for stack in STACKS})


def _all(parts: Sequence[Injection], field: str) -> list[Any]:
  return [getattr(part, field) for part in parts]


def _replaced(own: Injection, change: Any) -> Injection:
  """`own` with other rows [1, P, H] and keys [L, 2, 1, P, N, D], where it has any."""
  found = {
    field: change(field, axis)
    for field, axis in (('prefix', 1), ('kv', 3))
    if getattr(own, field) is not None
  }
  return own.replace(**found)  # type: ignore[attr-defined]
