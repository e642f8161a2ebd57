"""Layouts: which logical axis is partitioned over which axes of the mesh (data, model)."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prompt_jax.errors import UserError, unknown
from prompt_jax.sharding.axes import Axes

# Logical axis -> mesh axes; an axis without a rule is replicated. A mesh axis partitions only one
# dimension of an array, and earlier rules come first: "batch" wins over "embed".
Rules = tuple[tuple[str, str | tuple[str, ...]], ...]

_EVERYWHERE = ('data', 'model')
_TENSOR: Rules = (
  ('batch', 'data'),
  ('vocab', 'model'),
  ('heads', 'model'),
  ('joined_kv', 'model'),
  ('mlp', 'model'),
)
LAYOUTS: dict[str, Rules] = {
  # Rows over all devices, weights replicated: frozen weights have no gradients to exchange.
  'data': (('batch', _EVERYWHERE),),
  # Megatron's: the inner dimension of each block over "model".
  'tensor': _TENSOR,
  # As "tensor", and between the blocks the length over "model" (Korthikanti et al. 2022). The rule
  # comes last: inside a block heads or "mlp" have "model", and the length is not partitioned.
  'sequence': (*_TENSOR, ('length', 'model')),
  # Rows and weights over all devices; the weights of a layer are gathered inside the scan.
  'fully_sharded': (('batch', _EVERYWHERE), ('embed', _EVERYWHERE)),
  # As "tensor", the other dimension of the weights over "data" (T5X: parameter partitioning 2).
  '2d': (*_TENSOR, ('embed', 'data')),
}

WITHOUT_MESH = 'data'  # the only layout that one device can have


class MeshSize(NamedTuple):
  """Devices along each axis of the mesh."""

  data: int
  model: int

  def __str__(self) -> str:
    return f'{self.data}x{self.model}'


def rules_of(layout: str) -> Rules:
  """The rules of a layout by name.

  Raises:
    UserError: unknown name.
  """
  if layout not in LAYOUTS:
    raise unknown('layout', layout, LAYOUTS, parameters=['layout'])
  return LAYOUTS[layout]


def parts(axis: str, rules: Rules, size: MeshSize) -> int:
  """The number of parts of a logical axis."""
  return _devices(_mesh_axes(axis, rules), size)


def prompt_axes(rules: Rules, size: MeshSize, prompts: int) -> tuple[str, ...]:
  """The mesh axes over which stacked prompts are partitioned, each prompt within one part.

  Of the axes of "batch", those with the most devices whose number divides that of the prompts; the
  rows of each prompt have the other axes.
  """
  names = _mesh_axes('batch', rules)
  every = itertools.chain.from_iterable(
    itertools.combinations(names, n) for n in range(len(names) + 1)
  )
  working = [axes for axes in every if prompts % _devices(axes, size) == 0]
  return max(working, key=lambda axes: _devices(axes, size))


def without(axes: Sequence[str], rules: Rules) -> Rules:
  """The rules with only the other axes of the mesh."""
  left = ((name, tuple(n for n in _mesh_axes(name, rules) if n not in axes)) for name, _ in rules)
  return tuple((name, names) for name, names in left if names)


def check_divides(
  layout: str, size: MeshSize, rows: int | None, dimensions: Mapping[str, Sequence[int]]
) -> None:
  """Checks that batches and weights divide evenly over a mesh.

  Args:
    layout: name of the layout.
    size: of the mesh.
    rows: of a batch, or of one of its microbatches; None if it is padded until it divides.
    dimensions: logical axis -> its sizes; see `dimensions_of`.

  Raises:
    UserError: what does not divide, and the nearest mesh that works.
  """
  rules = rules_of(layout)
  every = {'batch': () if rows is None else (rows,), **dimensions}
  bad = _indivisible(rules, size, every)
  if bad is None:
    return
  axis, length, count = bad
  what = {
    'batch': f'{length} rows (of a batch, or of a microbatch)',
    'heads': f'{length} attention heads',
    'vocab': f'a vocabulary of {length}',
  }.get(axis, f'{axis} of {length}')
  near = _nearest(rules, size, every)
  remedy = f'The nearest mesh that works is {near}.'
  if axis == 'batch':
    remedy += f' Or give a batch size that, divided by microbatches, is a multiple of {count}.'
  raise UserError(
    f'The layout {layout!r} on the mesh {size} (data x model) splits {what} into {count} parts, '
    f'and {length} is not a multiple of {count}. {remedy}',
    parameters=['mesh', 'batch_size', 'microbatches'] if axis == 'batch' else ['mesh'],
  )


def dimensions_of(
  axes: Mapping[str, Axes], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, list[int]]:
  """Logical axis -> its sizes in these parameters, except vectors, which are replicated."""
  found: dict[str, set[int]] = {}
  for path, names in axes.items():
    if len([n for n in names if n != 'layers']) > 1:
      for name, length in zip(names, shapes[path], strict=True):
        found.setdefault(name, set()).add(length)
  return {name: sorted(lengths) for name, lengths in found.items()}


def _mesh_axes(axis: str, rules: Rules) -> tuple[str, ...]:
  names = dict(rules).get(axis, ())
  return (names,) if isinstance(names, str) else names


def _devices(axes: Sequence[str], size: MeshSize) -> int:
  return math.prod(getattr(size, name) for name in axes)


def _indivisible(
  rules: Rules, size: MeshSize, dimensions: Mapping[str, Sequence[int]]
) -> tuple[str, int, int] | None:
  """The first (axis, length, parts) that does not divide."""
  for axis, lengths in dimensions.items():
    count = parts(axis, rules, size)
    for length in lengths:
      if length % count:
        return axis, length, count
  return None


def _nearest(rules: Rules, size: MeshSize, dimensions: Mapping[str, Sequence[int]]) -> MeshSize:
  """Of the meshes that work with at most as many devices: the most devices, then the closest."""
  most = size.data * size.model
  every = (MeshSize(d, m) for m in range(1, most + 1) for d in range(1, most // m + 1))
  working = [s for s in every if _indivisible(rules, s, dimensions) is None]
  return max(working, key=lambda s: (s.data * s.model, -abs(s.model - size.model)))
