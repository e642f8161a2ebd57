"""T5X's optimisers for the leaves that train; the rest has no optimiser state at all."""

import re
from collections.abc import Sequence

from flax import traverse_util
from t5x import optimizers

from prompt_jax.t5x.names import CONSTANTS


def only(patterns: Sequence[str], optimizer: optimizers.OptimizerDef) -> optimizers.OptimizerDef:
  """`optimizer` for the parameters whose whole name one of `patterns` matches.

  Args:
    patterns: regular expressions of T5X's names, such as "encoder/prompt/prompt/prompt".
    optimizer: any of T5X's.
  """

  def trains(path: str, _) -> bool:
    name = path.removeprefix('/')
    constant = name.startswith(f'{CONSTANTS}/')
    return not constant and any(re.fullmatch(pattern, name) for pattern in patterns)

  traversal = traverse_util.ModelParamTraversal(trains)
  return optimizers.MultiOptimizer([(traversal, optimizer)])
