"""Meshes of several slices or hosts that are joined by a slower network.

The devices of a slice have links of their own (ICI, NVLink); slices are joined by the network of a
data centre (DCN). Only the outer part of "data" crosses it, with a gradient of prompts once a step.
"""

import collections
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils

from prompt_jax.errors import UserError
from prompt_jax.sharding.layouts import MeshSize


def count_slices(devices: Sequence[jax.Device]) -> int:
  """The number of slices that TPU devices report; 1 for devices of another kind.

  Hosts of other devices may be joined by links as fast as those within, so the user decides.
  """
  return len({_slice_of(d) for d in devices if d.platform == 'tpu'}) or 1


def device_grid(size: MeshSize, devices: Sequence[jax.Device], slices: int) -> np.ndarray:
  """Arranges devices as a mesh whose "data" axis has one slice after the other.

  Args:
    size: of the mesh, which has all of the devices.
    devices: of all slices. If they do not report their slice, each process is a slice.
    slices: number of slices.

  Returns:
    object[data, model] of devices; rows s * data / slices and on are those of slice s.

  Raises:
    UserError: "data" is not a multiple of the slices; the devices have another number of slices or
      processes, or not equally many devices in each.
  """
  if size.data % slices:
    least = -(-size.data // slices) * slices
    raise UserError(
      f'The mesh {size} (data x model) has {size.data} devices along data, which do not divide '
      f'into {slices} slices: "model" never crosses slices. Give a mesh with a multiple of '
      f'{slices} along data, such as {MeshSize(least, size.model)}.',
      parameters=['mesh'],
    )
  if slices == 1 and count_slices(devices) == 1:
    return mesh_utils.create_device_mesh(size, devices, allow_split_physical_axes=True)
  by_process = len({_slice_of(d) for d in devices}) == 1
  members = collections.Counter(d.process_index if by_process else _slice_of(d) for d in devices)
  if len(members) != slices:
    what = 'process(es), and do not report their slice' if by_process else 'slices'
    raise UserError(
      f'slices is {slices}, and the devices belong to {len(members)} {what}. '
      f'Expected {len(members)}.',
      parameters=['slices'],
    )
  if len(set(members.values())) > 1:
    raise UserError(
      f'The mesh {size} takes {" and ".join(map(str, members.values()))} devices of the slices; '
      'expected equally many of each. Give a mesh of all devices.',
      parameters=['mesh'],
    )
  return mesh_utils.create_hybrid_device_mesh(
    (size.data // slices, size.model),
    (slices, 1),
    devices,
    process_is_granule=by_process,
    allow_split_physical_axes=True,
  )


def _slice_of(device: jax.Device) -> int:
  """The slice of a device; 0 for CPUs, and for GPUs of one process, which report none."""
  return getattr(device, 'slice_index', 0)
