"""The TPU slices that can be planned for, and the published peaks of their chips."""

import dataclasses
from typing import Any

from prompt_jax.errors import unknown

_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """Published figures of one device.

  Attributes:
    flops: peak per second, bfloat16.
    kernel_flops: per second, of the kernel `models.attention.fused`, which is limited by the vector
      units: from the instructions that libtpu 0.0.42.1 schedules for 612 positions and heads of 64,
      one cycle each.
    memory: bytes that libtpu gives to a program.
    bandwidth: bytes per second of its memory.
    link: bytes per second of one interconnect link, in one direction.
    clock: cycles per second, by which the compiler's estimates are divided.
  """

  flops: float
  kernel_flops: float
  memory: int
  bandwidth: float
  link: float
  clock: float


@dataclasses.dataclass(frozen=True)
class Slice:
  """A slice as libtpu names it.

  Attributes:
    topology: libtpu's name.
    devices: JAX devices in it.
    chip: of each.
    options: further arguments of `get_topology_desc`.
  """

  topology: str
  devices: int
  chip: Chip
  options: dict[str, Any]


V4 = Chip(
  flops=275e12,
  kernel_flops=57e12,
  memory=int(30.75 * _GIB),
  bandwidth=1228e9,
  link=45e9,
  clock=1.05e9,
)
V5E = Chip(
  flops=197e12,
  kernel_flops=50e12,
  memory=int(15.75 * _GIB),
  bandwidth=819e9,
  link=45e9,
  clock=1.5e9,
)
V5P = Chip(
  flops=459e12,
  kernel_flops=121e12,
  memory=int(95.74 * _GIB),
  bandwidth=2765e9,
  link=90e9,
  clock=1.75e9,
)
V6E = Chip(
  flops=918e12,
  kernel_flops=76e12,
  memory=int(31.25 * _GIB),
  bandwidth=1640e9,
  link=90e9,
  clock=1.75e9,
)

_ONE = {'chips_per_host_bounds': (1, 1, 1)}  # libtpu expects whole hosts otherwise
_V4 = {'chip_config_name': 'megacore'}  # a chip's two cores as one device, as they are used

# The number in the name of a v4 or v5p slice counts cores (two per chip), in others chips.
SLICES: dict[str, Slice] = {
  'v5e-1': Slice('v5e:1x1', 1, V5E, _ONE),
  'v5e-4': Slice('v5e:2x2', 4, V5E, {}),
  'v5e-8': Slice('v5e:2x4', 8, V5E, {}),
  'v5e-16': Slice('v5e:4x4', 16, V5E, {}),
  'v5e-32': Slice('v5e:4x8', 32, V5E, {}),
  'v5e-64': Slice('v5e:8x8', 64, V5E, {}),
  'v5e-128': Slice('v5e:8x16', 128, V5E, {}),
  'v5e-256': Slice('v5e:16x16', 256, V5E, {}),
  'v4-8': Slice('v4:2x2x1', 4, V4, _V4),
  'v4-16': Slice('v4:2x2x2', 8, V4, _V4),
  'v4-32': Slice('v4:2x2x4', 16, V4, _V4),
  'v4-128': Slice('v4:4x4x4', 64, V4, _V4),
  'v5p-8': Slice('v5p:2x2x1', 4, V5P, {}),
  'v5p-32': Slice('v5p:2x2x4', 16, V5P, {}),
  'v5p-128': Slice('v5p:4x4x4', 64, V5P, {}),
  'v6e-1': Slice('v6e:1x1', 1, V6E, _ONE),
  'v6e-4': Slice('v6e:2x2', 4, V6E, {}),
  'v6e-8': Slice('v6e:2x4', 8, V6E, {}),
  'v6e-16': Slice('v6e:4x4', 16, V6E, {}),
  'v6e-256': Slice('v6e:16x16', 256, V6E, {}),
}


def slice_of(name: str) -> Slice:
  """A slice by name.

  Raises:
    UserError: it is not known.
  """
  if name not in SLICES:
    raise unknown('topology', name, SLICES)
  return SLICES[name]
