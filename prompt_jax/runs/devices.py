"""Where a run computes: the device, the mesh, and the compiled programs that are kept."""

import dataclasses
from collections.abc import Sequence

import jax

from prompt_jax.loading import BaseModel
from prompt_jax.runtime.compilation_cache import enable_compilation_cache
from prompt_jax.runtime.devices import choose_device
from prompt_jax.sharding import placement as meshes
from prompt_jax.sharding.placement import Placement
from prompt_jax.training.settings import Settings


@dataclasses.dataclass(frozen=True)
class Devices:
  """Where a run computes.

  Attributes:
    device: see `runtime.devices.KINDS`.
    compilation_cache: see `runtime.compilation_cache`.
    mesh: (data, model) devices along each axis; None for one device, or for those of all processes.
    layout: how the model and batches lie on the mesh, see `sharding.layouts.LAYOUTS`.
    slices: that a slower network joins, see `sharding.placement.make`.
  """

  device: str
  compilation_cache: str
  mesh: Sequence[int] | None
  layout: str
  slices: int | None

  def start(self) -> Placement | None:
    """Makes the device JAX's and its compiled programs kept; the mesh, None for one device."""
    chosen = choose_device(self.device)
    enable_compilation_cache(self.compilation_cache, chosen)
    return meshes.make(self.mesh, self.layout, jax.devices(chosen.platform), self.slices)


def on_mesh(
  settings: Settings,
  placement: Placement | None,
  base: BaseModel,
  batch_size: int,
  packed: bool = False,
) -> Settings:
  """The settings for a mesh, before the model is read; as they are for one device.

  Raises:
    UserError: the model or the batch does not divide over it; with the nearest mesh that works.
  """
  if placement is None:
    return settings
  # What suits the caches of one device says nothing of a mesh.
  microbatches = settings.microbatches or 1
  # Packed rows are as many as divide: see `train`.
  base.check_divides(placement, None if packed else batch_size // microbatches)
  return dataclasses.replace(settings, microbatches=microbatches)
