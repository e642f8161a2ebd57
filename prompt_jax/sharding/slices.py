"""Meshes of several slices or hosts, which a slower network joins.

Within a slice devices are joined by their own links (ICI, NVLink), and slices by the network of a
data centre (DCN). Only the outer part of "data" may cross it: what is exchanged there is a
gradient of prompts, once a step.
"""

import collections
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils

from prompt_jax.errors import UserError
from prompt_jax.sharding.layouts import MeshSize


def count_slices(devices: Sequence[jax.Device]) -> int:
  """Of how many slices TPU devices say that they are; 1 for devices of another kind.

  Elsewhere hosts may be joined by links as fast as those within, so the user decides.
  """
  return len({_slice_of(d) for d in devices if d.platform == 'tpu'}) or 1


def device_grid(size: MeshSize, devices: Sequence[jax.Device], slices: int) -> np.ndarray:
  """The devices as a mesh whose "data" axis has one slice after the other.

  Args:
    size: of the mesh, which takes all of the devices.
    devices: of all slices. Where they do not say of which slice they are, a process is one.
    slices: how many.

  Returns:
    object[data, model] of devices; rows s * data / slices and on are those of slice s.

  Raises:
    UserError: "data" does not divide into the slices; the devices are of another number of slices
      and of processes, or not of equally many each.
  """
  if size.data % slices:
    least = -(-size.data // slices) * slices
    raise UserError(
      f'The mesh {size} (data x model) has {size.data} devices along data, which do not divide '
      f'into {slices} slices: "model" never crosses slices. Give a mesh with a multiple of '
      f'{slices} along data, such as {MeshSize(least, size.model)}.'
    )
  if slices == 1 and count_slices(devices) == 1:
    return mesh_utils.create_device_mesh(size, devices, allow_split_physical_axes=True)
  by_process = len({_slice_of(d) for d in devices}) == 1
  members = collections.Counter(d.process_index if by_process else _slice_of(d) for d in devices)
  if len(members) != slices:
    what = 'process(es), and do not say of which slice they are' if by_process else 'slices'
    raise UserError(
      f'{slices} slices are asked for, and the devices are of {len(members)} {what}. '
      f'Give --slices {len(members)}.'
    )
  if len(set(members.values())) > 1:
    raise UserError(
      f'The mesh {size} takes {" and ".join(map(str, members.values()))} devices of the slices; '
      'expected as many of each. Give a mesh of all devices.'
    )
  return mesh_utils.create_hybrid_device_mesh(
    (size.data // slices, size.model),
    (slices, 1),
    devices,
    process_is_granule=by_process,
    allow_split_physical_axes=True,
  )


def _slice_of(device: jax.Device) -> int:
  """CPUs, and GPUs of one process, say nothing."""
  return getattr(device, 'slice_index', 0)
