"""How arrays, and the intermediate values of a function, are partitioned over several devices."""

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
from prompt_jax.sharding.slices import count_slices, device_grid

BACKBONE = 'backbone/'


@dataclasses.dataclass(frozen=True)
class Placement:
  """A mesh and a layout on it.

  Only the backbone is partitioned. Prompts, constants and optimizer state are replicated, and so
  are vectors: gathering one would cost more than keeping it.

  Attributes:
    mesh: with the axes "data" and "model".
    layout: a key of `layouts.LAYOUTS`.
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
  def replicated(self) -> NamedSharding:
    """The sharding of an array that is the same on every device."""
    return NamedSharding(self.mesh, PartitionSpec())

  @property
  def row_sharding(self) -> NamedSharding:
    """The sharding of a batch, by the first axis of its arrays (B)."""
    return NamedSharding(self.mesh, PartitionSpec(dict(self.rules)['batch']))

  @property
  def _shared(self) -> bool:
    """Whether the mesh has devices of other processes."""
    return not self.replicated.is_fully_addressable

  @property
  def row_parts(self) -> int:
    """The number of parts of a batch."""
    return layouts.parts('batch', self.rules, self.size)

  def pad_to_multiple(self, rows: int) -> int:
    """`rows`, rounded up to the next multiple of `row_parts`."""
    return -(-rows // self.row_parts) * self.row_parts

  def check_divides(self, shapes: Mapping[str, tuple[int, ...]], rows: int | None) -> None:
    """Checks that a model and a batch divide evenly over the mesh.

    Args:
      shapes: of the backbone's leaves by path "encoder/layers/mlp/wo/kernel".
      rows: of a batch or microbatch; None if batches are padded until they divide.

    Raises:
      UserError: what does not divide, and the nearest mesh that works.
    """
    dimensions = layouts.dimensions_of(axes_of(list(shapes)), shapes)
    layouts.check_divides(self.layout, self.size, rows, dimensions)

  def backbone_leaf(self, path: str, shape: tuple[int, ...]) -> NamedSharding:
    """The sharding of a leaf of the backbone, by path "encoder/layers/mlp/wo/kernel".

    Raises:
      UserError: no logical axes are known for the path.
    """
    return NamedSharding(self.mesh, self._spec(axes_of([path])[path], shape))

  def put_backbone_leaf(self, path: str, leaf: Any) -> Any:
    """Puts a host array (or a tree of arrays of one path) on the devices, each with its part.

    Blocks, so that only one leaf is in flight at a time.
    """
    put = lambda x: self.put(x, self.backbone_leaf(path, np.shape(x)))
    return jax.block_until_ready(jax.tree.map(put, leaf))

  def put(self, tree: Any, sharding: NamedSharding) -> Any:
    """Puts arrays on the mesh.

    With several processes each passes the same arrays and keeps the parts of its own devices.
    Nothing is sent, so that a thread may call it while a step runs.

    Args:
      tree: arrays on the host, on one device, or on this mesh.
      sharding: of every leaf.
    """
    if not self._shared:
      return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: self._put_part(x, sharding), tree)

  def put_rows(self, batch: Any) -> Any:
    """Puts a batch on the mesh, each device with its own rows."""
    return self.put(batch, self.row_sharding)

  def replicate(self, tree: Any) -> Any:
    """Replicates arrays over the mesh; those that are on the mesh already stay as they are."""
    return jax.tree.map(lambda x: x if self._holds(x) else self.put(x, self.replicated), tree)

  def put_params(self, tree: Any) -> Any:
    """Puts a tree {"backbone": ..., "prompt": ...} on the mesh by `shardings`.

    Leaves that are on the mesh already stay as they are.
    """
    put = lambda x, sharding: x if self._holds(x) else self.put(x, sharding)
    return jax.tree.map(put, tree, self.shardings(tree))

  def to_local(self, tree: Any) -> Any:
    """Gathers arrays of the mesh, each on one device of this process."""
    whole = jax.jit(_same, out_shardings=self.replicated)(tree)
    return jax.tree.map(lambda x: x.addressable_data(0), whole)

  def shardings(self, tree: Any) -> Any:
    """The shardings of a tree {"backbone": ..., "prompt": ...} of arrays or shapes."""

    def leaf(path: tuple[Any, ...], x: Any) -> NamedSharding:
      name = '/'.join(str(k.key) for k in path if isinstance(k, jax.tree_util.DictKey))
      if not name.startswith(BACKBONE):
        return self.replicated
      return self.backbone_leaf(name.removeprefix(BACKBONE), np.shape(x))

    return jax.tree_util.tree_map_with_path(leaf, tree)

  def with_mesh(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, traced with this mesh and layout, which partition its intermediate values too."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
      # The abstract mesh: `jax.set_mesh` is not allowed inside jit, where this may be called.
      # The devices are those of the arguments.
      mesh = jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh)
      with mesh, nn.logical_axis_rules(self.rules):
        return function(*args, **kwargs)

    return call

  def vmap(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`jax.vmap(function)` over stacked prompts, which some axes of the mesh partition.

    The rows of each prompt are partitioned over the other axes.

    For use in a function that is traced by `with_mesh`. The axes are those of
    `layouts.prompt_axes`: none if the number of prompts does not divide, so any number works.

    Args:
      function: takes the arrays of one prompt. Its results are replicated.
    """

    def call(stacked: Any) -> Any:
      count = jax.tree.leaves(stacked)[0].shape[0]
      axes = layouts.prompt_axes(self.rules, self.size, count)

      def cut(x: jax.Array) -> jax.Array:
        spec = PartitionSpec(axes, *[PartitionSpec.UNCONSTRAINED] * (x.ndim - 1))
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, spec))

      with nn.logical_axis_rules(layouts.without(axes, self.rules)):
        found = jax.vmap(function, spmd_axis_name=axes or None)(jax.tree.map(cut, stacked))
      return jax.lax.with_sharding_constraint(found, self.replicated)

    return call

  def _holds(self, x: Any) -> bool:
    sharding = x.sharding if isinstance(x, jax.Array) else None
    return isinstance(sharding, NamedSharding) and sharding.mesh == self.mesh

  def _put_part(self, x: Any, sharding: NamedSharding) -> jax.Array:
    if self._holds(x):  # a collective, unless it lies so already
      if x.sharding.is_equivalent_to(sharding, x.ndim):
        return x
      return jax.jit(_same, out_shardings=sharding)(x)
    # A copy: on a CPU the result may share its memory, and may be donated.
    host = np.array(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])

  def _spec(self, axes: Axes, shape: tuple[int, ...]) -> PartitionSpec:
    if len([name for name in axes if name != 'layers']) < 2:
      return PartitionSpec()
    # A dimension of one is that of a scale, which is the same all along it.
    names = [name if n > 1 else None for name, n in zip(axes, shape, strict=True)]
    spec = nn.logical_to_mesh_axes(names, self.rules)
    assert spec is not None  # names were given
    return spec


def _same(tree: Any) -> Any:
  """Compiled once for each sharding; a lambda would be compiled at every call."""
  return tree


def make(
  size: Sequence[int] | None,
  layout: str,
  devices: Sequence[jax.Device],
  slices: int | None = None,
) -> Placement | None:
  """Makes a placement on the first devices.

  Args:
    size: (data, model) numbers of devices along each axis. None is one device, which needs no
      placement; with several processes it is all devices along "data".
    layout: a key of `layouts.LAYOUTS`.
    devices: all devices, of all processes.
    slices: number of slices joined by a slower network, see `slices.device_grid`; None for as many
      as TPU devices report.

  Returns:
    The placement, None for one device.

  Raises:
    UserError: an unknown layout, or one that needs a mesh; not a size of a mesh; more devices than
      there are, or fewer with several processes; a number of slices that the devices do not have or
      that does not divide "data".
  """
  if slices is not None and not _is_count(slices):
    raise UserError(
      f'slices is {slices!r}; expected an integer of at least 1.', parameters=['slices']
    )
  multi_process = len({d.process_index for d in devices}) > 1
  if size is None and multi_process:
    size = (len(devices), 1)
  if size is None:
    if layout != layouts.WITHOUT_MESH:
      layouts.rules_of(layout)
      raise UserError(
        f'The layout {layout!r} needs a mesh (data, model), such as 1x4.', parameters=['mesh']
      )
    if slices not in (None, 1):
      raise UserError(
        f'{slices} slices need a mesh (data, model), such as {slices}x1.', parameters=['mesh']
      )
    return None
  layouts.rules_of(layout)
  if len(size) != 2 or not all(map(_is_count, size)):
    raise UserError(
      f'mesh is {size!r}; expected two positive integers (data, model), such as (4, 1).',
      parameters=['mesh'],
    )
  wanted = MeshSize(*size)
  count = wanted.data * wanted.model
  if count > len(devices):
    raise UserError(
      f'The mesh {wanted} needs {count} devices, and there are {len(devices)} of the kind '
      f'{devices[0].platform}. Give a mesh of at most {len(devices)}.',
      parameters=['mesh'],
    )
  if multi_process and count < len(devices):
    raise UserError(
      f'The mesh {wanted} has {count} devices, and the processes have {len(devices)} in total. '
      'Give a mesh of all of them, so that none is idle.',
      parameters=['mesh'],
    )
  devices = devices[:count]
  grid = device_grid(wanted, devices, count_slices(devices) if slices is None else slices)
  axes = AxisType.Auto, AxisType.Auto
  return Placement(Mesh(grid, ('data', 'model'), axes), layout)


def _is_count(n: Any) -> bool:
  return isinstance(n, int) and not isinstance(n, bool) and n > 0
