"""Plans a step for a TPU slice with the TPU compiler, without a TPU: memory and time.

libtpu compiles for a slice that is only described. Its decision on memory is final: a real slice
refuses a program that needs too much memory by the same check. Times are estimates.
"""

import contextlib
import dataclasses
import importlib.util
import logging
import math
import re
import time
from typing import Any

import jax

from prompt_jax.errors import UserError, install
from prompt_jax.runtime import libtpu
from prompt_jax.runtime.devices import without_compilation_cache
from prompt_jax.scale import flops
from prompt_jax.scale.chips import slice_of
from prompt_jax.scale.cost import Cost, cost
from prompt_jax.scale.program import Work, all_trains, lowered, prompt_rows
from prompt_jax.sharding.placement import Placement, make


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one device, as the compiler assigned them.

  Attributes:
    arguments: weights, state and batch.
    outputs: those that share no memory with arguments.
    temporaries: arrays that exist only during the step.
  """

  arguments: int
  outputs: int
  temporaries: int

  @property
  def total(self) -> int:
    return self.arguments + self.outputs + self.temporaries


@dataclasses.dataclass(frozen=True)
class Plan:
  """The compiler's results for a step.

  Attributes:
    fits: whether one device's memory holds it.
    needed: bytes that one device needs.
    limit: bytes that one device has for a program.
    memory: None where it does not fit.
    cost: None where it does not fit.
    compile_seconds: tracing included.
    ideal_seconds: of a training step's matrix products at the chips' peak, or at the rate of one
      matrix product that was measured: 4 FLOPs a weight and token (6 where all weights train), and
      attention's own; None for other steps.
    least_flops: FLOPs of those products, on one device.
  """

  fits: bool
  needed: int
  limit: int
  memory: Memory | None
  cost: Cost | None
  compile_seconds: float
  ideal_seconds: float | None
  least_flops: float | None = None

  @property
  def estimate_seconds(self) -> float | None:
    """Sum of the compiler's cycles / clock, and of bytes sent / bandwidth of one link."""
    return None if self.cost is None else self.cost.cycle_seconds + self.cost.collective_seconds


def placement(
  topology: str, mesh: tuple[int, int] | None, layout: str, slices: int = 1
) -> Placement:
  """A mesh on one or several slices, which are only described.

  Args:
    topology: a name of `chips.SLICES`.
    mesh: (data, model); None for all devices along "data".
    layout: see `sharding.layouts.LAYOUTS`.
    slices: number of slices of the topology, joined by a data-centre network.

  Raises:
    UserError: an unknown slice or layout, a mesh of another number of devices than the slices have,
      or that does not divide over them, or no libtpu.
  """
  described = slice_of(topology)
  count = described.devices * slices
  size = mesh or (count, 1)
  if math.prod(size) != count:
    name = topology if slices == 1 else f'{slices} x {topology}'
    raise UserError(
      f'The mesh {size[0]}x{size[1]} has {math.prod(size)} devices, but {name} has {count}. Give a '
      'mesh with as many devices.'
    )
  place = make(size, layout, devices(topology, slices), slices)
  assert place is not None
  return place


def plan(work: Work, topology: str, place: Placement) -> Plan:
  """Compiles one step for a slice.

  Args:
    work: the step.
    topology: a name of `chips.SLICES`.
    place: of `placement`.

  Raises:
    UserError: the model or the batch does not divide over the mesh.
  """
  chip = slice_of(topology).chip
  began = time.monotonic()
  traced = lowered(work, place)
  least = train_flops(work) / place.mesh.size if work.step == 'train' else None
  ideal = least / chip.flops if least else None
  try:
    with without_compilation_cache():
      compiled = traced.compile()
  except jax.errors.JaxRuntimeError as error:
    needed, limit = refusal(error)
    seconds = time.monotonic() - began
    return Plan(False, needed, limit, None, None, seconds, ideal, least)
  seconds = time.monotonic() - began
  memory = assigned(compiled)
  # Decoding may end early; it is planned for the longest text.
  found = cost(compiled.as_text(), chip, work.targets if work.step == 'decode' else 1)
  return Plan(True, memory.total, chip.memory, memory, found, seconds, ideal, least)


def assigned(compiled: Any) -> Memory:
  """The memory that the compiler assigned to a program."""
  analysis = compiled.memory_analysis()
  return Memory(
    arguments=analysis.argument_size_in_bytes,
    outputs=analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
    temporaries=analysis.temp_size_in_bytes,
  )


def train_flops(work: Work) -> float:
  """See `flops.train_flops`; over all devices."""
  rows = work.prompts * work.batch
  positions = flops.of_rows(rows, work.inputs + prompt_rows(work), work.targets)
  return flops.train_flops(work.config, positions, all_trains(work))


def devices(topology: str, slices: int = 1) -> Any:
  """The devices of slices that are only described.

  Raises:
    UserError: an unknown slice, or no libtpu.
  """
  described = slice_of(topology)
  check_compiler()
  libtpu.quiet()
  from jax.experimental import topologies

  options = {**described.options, **({'num_slices': slices} if slices > 1 else {})}
  with _quiet():
    return topologies.get_topology_desc(
      platform='tpu', topology_name=described.topology, **options
    ).devices


def check_compiler() -> None:
  """Refuses where there is no libtpu."""
  if importlib.util.find_spec('libtpu') is None:
    raise UserError(
      'A plan needs the TPU compiler, libtpu, which is not installed; it needs no TPU. '
      f'Install it, {install("tpu")}'
    )


@contextlib.contextmanager
def _quiet() -> Any:
  """Silences JAX's messages about a TPU that was not found."""
  logger = logging.getLogger('jax')
  before = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(before)


def refusal(error: jax.errors.JaxRuntimeError) -> tuple[int, int]:
  """(bytes needed, bytes there) of "total memory required ... (21.37G) exceeds ... (15.75G)".

  Raises:
    UserError: the compiler refuses the step for another reason.
  """
  text = str(error)
  found = re.search(r'\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)', text)
  found = found or re.search(r'Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm', text)
  if 'RESOURCE_EXHAUSTED' not in text or not found:
    raise UserError(f'The compiler refuses this step: {text.strip().splitlines()[0]}') from error
  units = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
  amount, unit, limit, limit_unit = found.groups()
  return int(float(amount) * units[unit]), int(float(limit) * units[limit_unit])
