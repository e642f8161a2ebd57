"""How values between parameters are cut over devices, where a mesh is in use."""

import jax
from flax import linen as nn

Array = jax.Array


def constrained(x: Array, *axes: str) -> Array:
  """`x` cut as the rules in use say for its logical axes; `x` itself where there are none.

  A dimension of one, such as the batch of a prompt that is the same for every row, stays whole.
  """
  names = tuple(name if n > 1 else None for name, n in zip(axes, x.shape, strict=True))
  return nn.with_logical_constraint(x, names)
