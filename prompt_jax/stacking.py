"""One function of several trees of arrays, or of a batch in parts: in training and evaluation."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.runtime.devices import default_device

# Input tokens of a part of a batch whose activations stay in a CPU's caches.
CACHED = 512


def group_by_structure(trees: Sequence[Any], functions: Sequence[Hashable]) -> list[list[int]]:
  """Numbers of the trees that can be stacked and mapped over by one function.

  Args:
    trees: K trees of arrays.
    functions: what each is for; trees of one group have equal ones, and equal structure, shapes and
      dtypes.
  """
  groups: dict[Any, list[int]] = {}
  for k, (tree, function) in enumerate(zip(trees, functions, strict=True)):
    leaves, structure = jax.tree.flatten(tree)
    shapes = tuple((np.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    groups.setdefault((function, structure, shapes), []).append(k)
  return list(groups.values())


def map_stacked(
  call: Callable[[Any], Any],
  trees: Sequence[Any],
  at_once: int | None = None,
  vmap: Callable[[Callable[[Any], Any]], Callable[[Any], Any]] = jax.vmap,
) -> list[Any]:
  """`[call(tree) for tree in trees]`, mapped over the trees stacked along a leading axis.

  Args:
    call: a pure function of one tree.
    trees: K trees of equal structure, shapes and dtypes.
    at_once: most trees of one `vmap`; more are cut into parts, one after the other, so that memory
      does not grow with K. None for all.
    vmap: maps `call` over a stack; on a mesh `Placement.vmap`.
  """
  if len(trees) == 1:
    return [call(trees[0])]
  if at_once == 1:  # a loop whose body is `call` itself
    found = jax.lax.map(call, _stacked(trees))
  elif at_once is None or at_once >= len(trees):
    found = vmap(call)(_stacked(trees))
  else:
    found = _in_groups(vmap(call), _stacked(trees), at_once)
  return [jax.tree.map(lambda x, k=k: x[k], found) for k in range(len(trees))]


def prompts_at_once(prompts: int, rows: int, width: int) -> int:
  """Prompts to compute at once, each on [rows, width] tokens: on a CPU few, elsewhere all.

  A GPU or TPU needs the rows of many prompts to be busy; a CPU is busy with few, and slower once
  their activations leave its caches.
  """
  if default_device().platform != 'cpu':
    return prompts
  return min(prompts, max(1, CACHED // (rows * width)))


def parts_for_caches(rows: int, width: int) -> int:
  """Parts of a batch that suit the device: on a CPU the most that leave each `CACHED` tokens.

  Activations of such a part stay in a CPU's caches, which saves up to a quarter of a step;
  elsewhere a batch is one part.
  """
  if default_device().platform != 'cpu':
    return 1
  whole = [m for m in range(1, rows + 1) if rows % m == 0 and rows // m * width >= CACHED]
  return max(whole, default=1)


def map_in_parts(call: Callable[[Any], Any], rows: Any, parts: int) -> Any:
  """`call(rows)` of equal parts one after the other: from arrays [B, ...] to arrays [B, ...]."""
  if parts == 1:
    return call(rows)
  cut = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), rows)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.lax.map(call, cut))


def _in_groups(call: Callable[[Any], Any], stacked: Any, size: int) -> Any:
  """`call` of `size` trees at a time, and last of those that are left over."""
  count = jax.tree.leaves(stacked)[0].shape[0]
  whole = count - count % size
  found = map_in_parts(call, jax.tree.map(lambda x: x[:whole], stacked), whole // size)
  if whole == count:
    return found
  rest = call(jax.tree.map(lambda x: x[whole:], stacked))
  return jax.tree.map(lambda *x: jnp.concatenate(x), found, rest)


def _stacked(trees: Sequence[Any]) -> Any:
  return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
