"""Plans a step for the devices of this machine with their own compiler, without allocating arrays.

This compiler does not say how long a step takes. Instead there is a lower bound: the minimum FLOPs
of a training step, at the rate of one matrix product that is measured here.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.models.attention.attend import check_device
from prompt_jax.scale import memory
from prompt_jax.scale.plan import Plan, assigned, refusal, train_flops
from prompt_jax.scale.program import Work, lowered
from prompt_jax.sharding.placement import Placement, make

HERE = 'here'  # instead of a topology
_SECONDS = 0.15  # for products of one size
_SIZES = (512, 1024, 2048, 4096, 8192)


def placement(
  mesh: Sequence[int] | None, layout: str, slices: int | None, devices: Sequence[jax.Device]
) -> Placement:
  """The mesh of a run; without one, a mesh of the one device that computes.

  Raises:
    UserError: more devices than there are, or a mesh or layout that cannot be.
  """
  place = make(mesh, layout, devices, slices)
  if place is None:
    place = make((1, 1), layout, devices)
  assert place is not None
  return place


def plan(work: Work, place: Placement) -> Plan:
  """Compiles one step for the devices of a mesh.

  Args:
    work: the step.
    place: of `placement`.

  Raises:
    UserError: the model or the batch does not divide over the mesh; a kernel of other devices.
  """
  device = place.mesh.devices.flat[0]
  check_device(work.config.attention, device)
  shared = place.mesh.size if device.platform == 'cpu' else 1  # devices that share memory and cores
  limit = memory.of_device(device) // shared
  began = time.monotonic()
  traced = lowered(work, place)
  least = train_flops(work) / place.mesh.size if work.step == 'train' else None
  ideal = least * shared / rate(device, work.config.dtype) if least else None
  try:
    compiled = traced.compile()
  except jax.errors.JaxRuntimeError as error:  # a TPU's compiler refuses what does not fit
    needed, limit = refusal(error)
    return Plan(False, needed, limit, None, None, time.monotonic() - began, ideal, least)
  taken = assigned(compiled)
  seconds = time.monotonic() - began
  return Plan(taken.total <= limit, taken.total, limit, taken, None, seconds, ideal, least)


@functools.cache
def rate(device: jax.Device, dtype: str) -> float:
  """FLOPs per second of one matrix product: the best of many, so that the bound remains a bound.

  Several sizes are tried: a GPU needs large ones, and on a busy machine small ones are most likely
  to run undisturbed.
  """
  product = jax.jit(jnp.matmul)
  best = 0.0
  for n in _SIZES:
    x = jax.device_put(jnp.ones((n, n), dtype), device)
    product(x, x).block_until_ready()  # compiled
    spent, least = 0.0, math.inf
    while spent < _SECONDS:
      seconds = _timed(product, x)
      spent, least = spent + seconds, min(least, seconds)
    best = max(best, 2 * n**3 / least)
    if least > _SECONDS / 8:  # the next size takes 8 times as long
      break
  return best


def _timed(product: Callable[[Any, Any], Any], x: Any) -> float:
  began = time.perf_counter()
  product(x, x).block_until_ready()
  return time.perf_counter() - began


def formula(device: jax.Device, dtype: str) -> str:
  """Explains the figures of a plan for this machine."""
  of_cpu = 'this machine, or its container, has available now'
  limit = of_cpu if device.platform == 'cpu' else 'JAX may allocate'
  return (
    f'Figures are for one device ({device.device_kind}). Memory: what its compiler assigned, '
    f'compared with what {limit}; the memory of the process itself comes on top. Ideal is a lower '
    f'bound, not an estimate: 4 FLOPs per weight and token, plus attention, at the measured rate '
    f'of one matrix product in {dtype}: {rate(device, dtype) / 1e12:.3g} TFLOP/s.'
  )


def check_topologies(topologies: Sequence[str], search: bool, fit: bool) -> None:
  """Refuses options that only TPU slices support."""
  if HERE not in topologies:
    return
  if len(topologies) > 1:
    raise UserError(
      f'Topology {HERE!r} means this machine; give it alone, without other topologies.',
      ('topology',),
    )
  if search or fit:
    name = 'search' if search else 'fit'
    raise UserError(
      f'{name} tries settings for TPU slices only; leave it out with topology {HERE!r}.', (name,)
    )
