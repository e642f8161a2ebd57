"""T5X's optimizers for the leaves that train; the rest has no optimizer state at all."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flax import core, serialization, traverse_util
from t5x import optimizers

from prompt_jax.t5x.names import CONSTANTS

Tree = dict[str, Any]


class Only(optimizers.OptimizerDef):
  """An optimizer for the parameters whose whole name a pattern matches.

  T5X's own `MultiOptimizer` marks the others by `None`, which Orbax writes and T5X cannot read
  back: such a run cannot be resumed. Here the others are simply not in the optimizer's state.
  """

  def __init__(self, patterns: Sequence[str], optimizer: optimizers.OptimizerDef):
    """Args: regular expressions of T5X's names, such as "encoder/prompt/prompt/prompt"; any of
    T5X's optimizers."""
    super().__init__(optimizer.hyper_params)
    self._patterns, self._optimizer = tuple(patterns), optimizer

  def init_state(self, params: Any) -> Any:
    return self._optimizer.init_state(self._trained(params))

  def apply_gradient(self, hyper_params: Any, params: Any, state: Any, grads: Any) -> Any:
    new, state = self._optimizer.apply_gradient(
      hyper_params, self._trained(params), state, self._trained(grads)
    )
    flat = traverse_util.flatten_dict(core.unfreeze(params))
    flat.update(traverse_util.flatten_dict(core.unfreeze(new)))
    merged = traverse_util.unflatten_dict(flat)
    return (core.freeze(merged) if isinstance(params, core.FrozenDict) else merged), state

  def update_hyper_params(self, **overrides: Any) -> Any:
    return self._optimizer.update_hyper_params(**overrides)

  def set_param_axes(self, axes: Any) -> None:
    if hasattr(self._optimizer, 'set_param_axes'):  # T5X asks its optimizers in this way
      self._optimizer.set_param_axes(self._trained(axes))

  def derive_logical_axes(self, optimizer: Any, axes: Any) -> Any:
    inner = optimizers.Optimizer(self._optimizer, optimizer.state, self._trained(optimizer.target))
    derived = self._optimizer.derive_logical_axes(inner, self._trained(axes))
    return optimizers.Optimizer(self, derived.state, axes)

  def state_dict(self, target: Any, state: Any) -> Tree:
    inner = self._optimizer.state_dict(self._trained(target), state)
    return {'target': serialization.to_state_dict(target), 'state': inner['state']}

  def restore_state(self, target: Any, state: Any, state_dict: Mapping[str, Any]) -> Any:
    trained = {'target': self._trained(state_dict['target']), 'state': state_dict['state']}
    _, state = self._optimizer.restore_state(self._trained(target), state, trained)
    return serialization.from_state_dict(target, state_dict['target']), state

  def _trained(self, tree: Any) -> Tree:
    """The part of a tree with T5X's names that trains."""
    flat = traverse_util.flatten_dict(core.unfreeze(tree), sep='/')
    return traverse_util.unflatten_dict(
      {name: leaf for name, leaf in flat.items() if self._trains(name)}, sep='/'
    )

  def _trains(self, name: str) -> bool:
    constant = name.startswith(f'{CONSTANTS}/')
    return not constant and any(re.fullmatch(pattern, name) for pattern in self._patterns)
