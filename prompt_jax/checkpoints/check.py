"""Whether a tree of parameters is that of an architecture."""

import functools
import types
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5

Shapes = Mapping[str, tuple[int, ...]]
# Leaves that agree are listed up to this number.
MANY = 50


@functools.cache
def expected_shapes(cfg: T5Config) -> Shapes:
  """Shape of each parameter by path "encoder/layers/mlp/wo/kernel", as the model makes them."""
  ids = jnp.zeros((1, 1), jnp.int32)
  tree = jax.eval_shape(T5(cfg).init, jax.random.key(0), ids, ids)
  flat = traverse_util.flatten_dict(tree['params'], sep='/')
  return types.MappingProxyType({path: leaf.shape for path, leaf in flat.items()})


def check_params(cfg: T5Config, params: Mapping[str, Any]) -> None:
  """Compares a backbone's tree with its configuration.

  Raises:
    UserError: paths are missing or unknown, or shapes differ; each is listed.
  """
  got = {p: np.shape(x) for p, x in traverse_util.flatten_dict(params, sep='/').items()}
  compare(expected_shapes(cfg), got, 'The parameters')


def compare(expected: Shapes, found: Shapes, what: str) -> None:
  """Compares two trees by the shapes of their leaves.

  Args:
    expected: of the architecture.
    found: of the checkpoint.
    what: begins the message.

  Raises:
    UserError: paths are missing or unknown, or shapes differ. The message has both trees, a leaf a
      line, with these marked; leaves that agree are counted instead where there are many.
  """
  if expected == found:
    return
  lines, agree = [], []
  for path in sorted(expected.keys() | found.keys()):
    want, have = expected.get(path), found.get(path)
    if want == have:
      agree.append(f'          {path} {_show(want)}')
      lines.append(agree[-1])
    elif want is None:
      lines.append(f'  unknown {path} {_show(have)}')
    elif have is None:
      lines.append(f'  missing {path} {_show(want)}')
    else:
      lines.append(f'  shape   {path} is {_show(have)}; expected {_show(want)}')
  if len(agree) > MANY:
    lines = [line for line in lines if line not in set(agree)]
    lines.append(f'  ... and {len(agree)} that agree')
  if len(lines) > 4 * MANY:
    lines = [*lines[: 4 * MANY], f'  ... and {len(lines) - 4 * MANY} more']
  raise UserError(
    f'{what} are not those of the architecture; nothing was loaded:\n' + '\n'.join(lines)
  )


def _show(shape: tuple[int, ...] | None) -> str:
  return str(list(shape or ()))
