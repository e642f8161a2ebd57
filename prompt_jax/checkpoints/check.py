"""Whether a tree of parameters is that of an architecture."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prompt_jax.errors import UserError
from prompt_jax.models.config import T5Config
from prompt_jax.models.t5 import T5


def expected_shapes(cfg: T5Config) -> dict[str, tuple[int, ...]]:
  """Shape of each parameter by path "encoder/layers/mlp/wo/kernel", as the model makes them."""
  ids = jnp.zeros((1, 1), jnp.int32)
  tree = jax.eval_shape(T5(cfg).init, jax.random.key(0), ids, ids)
  flat = traverse_util.flatten_dict(tree['params'], sep='/')
  return {path: leaf.shape for path, leaf in flat.items()}


def check_params(cfg: T5Config, params: Mapping[str, Any]) -> None:
  """Compares a backbone's tree with its configuration.

  Raises:
    UserError: paths are missing or unknown, or shapes differ; each is listed.
  """
  expected = expected_shapes(cfg)
  got = {p: np.shape(x) for p, x in traverse_util.flatten_dict(params, sep='/').items()}
  lines = [f'  missing {path} {list(expected[path])}' for path in sorted(expected.keys() - got)]
  lines += [f'  unknown {path} {list(got[path])}' for path in sorted(got.keys() - expected)]
  lines += [
    f'  {path} is {list(got[path])}; expected {list(expected[path])}'
    for path in sorted(expected.keys() & got)
    if got[path] != expected[path]
  ]
  if lines:
    raise UserError('The parameters are not those of the architecture:\n' + '\n'.join(lines))
