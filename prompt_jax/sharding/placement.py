"""Where arrays lie on several devices, and where a function's intermediate values do."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from prompt_jax.errors import UserError
from prompt_jax.sharding import layouts
from prompt_jax.sharding.axes import Axes, axes_of
from prompt_jax.sharding.layouts import MeshSize, Rules

BACKBONE = 'backbone/'


@dataclasses.dataclass(frozen=True)
class Placement:
  """A mesh and a layout on it.

  Only the backbone is ever cut. Prompts, constants and optimiser state are whole on every device,
  and so are vectors: to gather one would cost more than to keep it.

  Attributes:
    mesh: of the axes "data" and "model".
    layout: a name of `layouts.LAYOUTS`.
  """

  mesh: Mesh
  layout: str

  @property
  def rules(self) -> Rules:
    return layouts.rules_of(self.layout)

  @property
  def size(self) -> MeshSize:
    return MeshSize(self.mesh.shape['data'], self.mesh.shape['model'])

  @property
  def whole(self) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(self.mesh, PartitionSpec())

  @property
  def rows(self) -> NamedSharding:
    """Of a batch, whose arrays all begin with B."""
    return NamedSharding(self.mesh, PartitionSpec(dict(self.rules)['batch']))

  @property
  def row_parts(self) -> int:
    """Into how many parts a batch is cut."""
    return layouts.parts('batch', self.rules, self.size)

  def check(self, shapes: Mapping[str, tuple[int, ...]], rows: int) -> None:
    """Refuses a model or a batch that does not divide over the mesh.

    Args:
      shapes: of the backbone's leaves by path "encoder/layers/mlp/wo/kernel".
      rows: that run at a time.

    Raises:
      UserError: with the nearest mesh that works.
    """
    dimensions = layouts.dimensions_of(axes_of(list(shapes)), shapes)
    layouts.check(self.layout, self.size, rows, dimensions)

  def backbone_leaf(self, path: str, shape: tuple[int, ...]) -> NamedSharding:
    """Of one leaf of the backbone, by path "encoder/layers/mlp/wo/kernel".

    Raises:
      UserError: no logical axes are known for the path.
    """
    return NamedSharding(self.mesh, self._spec(axes_of([path])[path], shape))

  def put_backbone_leaf(self, path: str, leaf: Any) -> Any:
    """A host array (or several that belong to one path) on the devices, each its own part.

    Waits, so that only one leaf is ever in flight.
    """
    put = lambda x: jax.device_put(x, self.backbone_leaf(path, np.shape(x)))
    return jax.block_until_ready(jax.tree.map(put, leaf))

  def of(self, tree: Any) -> Any:
    """Shardings of a tree {"backbone": ..., "prompt": ...} of arrays or shapes."""

    def leaf(path: tuple[Any, ...], x: Any) -> NamedSharding:
      name = '/'.join(str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey))
      if not name.startswith(BACKBONE):
        return self.whole
      return self.backbone_leaf(name.removeprefix(BACKBONE), np.shape(x))

    return jax.tree_util.tree_map_with_path(leaf, tree)

  def within(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` traced with this mesh and layout, so that it cuts its intermediate values too."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
      with self.mesh, nn.logical_axis_rules(self.rules):
        return function(*args, **kwargs)

    return call

  def _spec(self, axes: Axes, shape: tuple[int, ...]) -> PartitionSpec:
    if len([name for name in axes if name != 'layers']) < 2:
      return PartitionSpec()
    # A dimension of one is that of a scale, which is the same all along it.
    names = [name if n > 1 else None for name, n in zip(axes, shape, strict=True)]
    spec = nn.logical_to_mesh_axes(names, self.rules)
    assert spec is not None  # names were given
    return spec


def make(
  size: Sequence[int] | None, layout: str, devices: Sequence[jax.Device]
) -> Placement | None:
  """A placement on the first devices.

  Args:
    size: (data, model) devices along each axis; None for one device, which needs no placement.
    layout: a name of `layouts.LAYOUTS`.
    devices: those there are.

  Raises:
    UserError: an unknown layout, or one that needs a mesh; no size of a mesh; more devices than
      there are.
  """
  layouts.rules_of(layout)
  if size is None:
    if layout != layouts.WITHOUT_MESH:
      raise UserError(f'The layout {layout!r} needs a mesh; give --mesh DATAxMODEL, such as 1x4.')
    return None
  whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in size)
  if len(size) != 2 or not whole:
    raise UserError(f'The mesh is {size!r}; expected two whole numbers, data and model: (4, 1).')
  wanted = MeshSize(*size)
  count = wanted.data * wanted.model
  if count > len(devices):
    raise UserError(
      f'The mesh {wanted} needs {count} devices, and there are {len(devices)} of the kind '
      f'{devices[0].platform}. Give a mesh of at most {len(devices)}.'
    )
  mesh = jax.make_mesh(
    tuple(wanted), ('data', 'model'), (AxisType.Auto, AxisType.Auto), devices=devices[:count]
  )
  return Placement(mesh, layout)
