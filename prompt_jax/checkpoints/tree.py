"""Our tree of parameters and T5X's: layers stacked on a leading axis, or one by one.

T5X names `encoder/layers_0/...`, `encoder/layers_1/...`; ours has `encoder/layers/...` with a
leading L axis, which the model scans over. Everything else is the same.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from prompt_jax.checkpoints.leaf import Leaf, Leaves, stacked
from prompt_jax.errors import UserError

Tree = dict[str, Any]

_IN_LAYER = re.compile(r'(.*/)layers_(\d+)/(.*)')


def unstack_layers(tree: Mapping[str, Any]) -> Tree:
  """`layers` -> `layers_0`, `layers_1`, ...; by views."""
  out: Tree = {}
  for name, sub in tree.items():
    if not isinstance(sub, Mapping):
      out[name] = sub
    elif name == 'layers':
      lengths = set(_lengths(sub))
      if len(lengths) != 1:
        raise UserError(f'Stacked leaves have leading axes {sorted(lengths)}; expected one length.')
      out |= {f'layers_{i}': _layer(sub, i) for i in range(lengths.pop())}
    else:
      out[name] = unstack_layers(sub)
  return out


def _lengths(tree: Any) -> Iterable[int]:
  if isinstance(tree, Mapping):
    for sub in tree.values():
      yield from _lengths(sub)
  else:
    yield np.shape(tree)[0]


def _layer(tree: Any, i: int) -> Any:
  if isinstance(tree, Mapping):
    return {name: _layer(sub, i) for name, sub in tree.items()}
  return np.asarray(tree)[i]


def stack_leaves(leaves: Leaves, where: str) -> Leaves:
  """`encoder/layers_0/x`, `encoder/layers_1/x`, ... -> `encoder/layers/x`, unread.

  Args:
    leaves: by path; those outside layers stay as they are.
    where: the checkpoint, for messages.

  Raises:
    UserError: a layer is missing, lacks an array that others have, or has another shape.
  """
  out: Leaves = {}
  layers: dict[str, dict[int, Leaf]] = {}
  depth: dict[str, int] = {}
  for path, leaf in leaves.items():
    found = _IN_LAYER.fullmatch(path)
    if not found:
      out[path] = leaf
      continue
    stack, i, rest = found[1], int(found[2]), found[3]
    layers.setdefault(f'{stack}layers/{rest}', {})[i] = leaf
    depth[stack] = max(depth.get(stack, 0), i + 1)
  missing = [
    path.replace('layers/', f'layers_{i}/', 1)
    for path, parts in layers.items()
    for i in range(depth[path.partition('layers/')[0]])
    if i not in parts
  ]
  if missing:
    raise UserError(
      f'{where} lacks {", ".join(missing[:5])}{" ..." * (len(missing) > 5)}: other layers of the '
      'same stack have it, so the checkpoint is not whole. Copy it again.'
    )
  for path, parts in layers.items():
    out[path] = stacked([parts[i] for i in range(len(parts))], path)
  return out
