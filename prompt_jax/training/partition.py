"""The only definition of trainable: one tree of parameters split in two by path.

What trains is split off as data before `jax.grad`, so gradients, optimizer state, checkpoints and
the printed count all follow from one list of patterns, and nothing is computed or stored for the
frozen rest.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from prompt_jax.errors import UserError

Tree = dict[str, Any]

PROMPT_ONLY = ('prompt/.*',)


def split(params: Tree, patterns: Sequence[str] = PROMPT_ONLY) -> tuple[Tree, Tree]:
  """Splits a tree into what trains and what does not.

  Args:
    params: nested dicts of arrays.
    patterns: regular expressions; a leaf trains if one of them matches its whole path
      "backbone/encoder/encoder_norm/scale". ("prompt/.*",) is prompt tuning, (".*",) everything.

  Returns:
    (trainable, frozen), nested dicts without empty branches; `merge` puts them together again.

  Raises:
    UserError: a pattern matches no path, or is no regular expression.
  """
  flat = traverse_util.flatten_dict(params, sep='/')
  trains = matching(flat, patterns)
  trainable = {path: leaf for path, leaf in flat.items() if path in trains}
  frozen = {path: leaf for path, leaf in flat.items() if path not in trains}
  return (
    traverse_util.unflatten_dict(trainable, sep='/'),
    traverse_util.unflatten_dict(frozen, sep='/'),
  )


def matching(paths: Sequence[str] | Tree, patterns: Sequence[str]) -> dict[str, str]:
  """The first pattern that matches each path, for the paths that one does.

  Raises:
    UserError: a pattern matches no path at all, or is no regular expression.
  """
  if isinstance(patterns, str):
    raise UserError(f'Patterns are a list of regular expressions; got the string {patterns!r}.')
  found: dict[str, str] = {}
  for pattern in patterns:
    try:
      hits = [path for path in paths if re.fullmatch(pattern, path)]
    except re.error as e:
      raise UserError(f'Pattern {pattern!r} is no regular expression: {e}.') from None
    if not hits:
      known = '\n  '.join(sorted(paths)) or 'none'
      raise UserError(
        f'Pattern {pattern!r} matches the whole of no parameter path. Paths:\n  {known}'
      )
    for path in hits:
      found.setdefault(path, pattern)
  return found


def merge(trainable: Tree, frozen: Tree) -> Tree:
  """The tree that `split` took apart.

  Raises:
    ValueError: a path is in both.
  """
  first = traverse_util.flatten_dict(trainable, sep='/')
  second = traverse_util.flatten_dict(frozen, sep='/')
  both = sorted(first.keys() & second.keys())
  if both:
    raise ValueError(f'These paths are both trainable and frozen: {", ".join(both)}')
  return traverse_util.unflatten_dict({**second, **first}, sep='/')


def count(tree: Any) -> int:
  """Number of values in all leaves of a tree."""
  return sum(int(np.prod(np.shape(leaf))) for leaf in jax.tree.leaves(tree))
