"""Searches for layout, dtype of weights, rematerialisation and number of microbatches."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from prompt_jax.checkpoints.leaf import expected_shapes
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from prompt_jax.scale.chips import SLICES, slice_of
from prompt_jax.scale.plan import Plan, placement, plan
from prompt_jax.scale.program import Work, abstract_variables
from prompt_jax.sharding import layouts
from prompt_jax.sharding.axes import axes_of
from prompt_jax.sharding.layouts import MeshSize

_WEIGHTS = ('bfloat16', 'int8')
_REMAT = ('cheap', 'all')


@dataclasses.dataclass(frozen=True)
class Setting:
  """One way to run a step on a slice."""

  topology: str
  layout: str
  mesh: MeshSize
  weights: str
  microbatches: int
  remat: str
  slices: int = 1  # of the topology

  def of(self, work: Work) -> Work:
    """`work` with this setting."""
    config = dataclasses.replace(work.config, remat=self.remat)
    return dataclasses.replace(
      work, config=config, weights=self.weights, microbatches=self.microbatches
    )


@dataclasses.dataclass(frozen=True)
class Found:
  setting: Setting
  plan: Plan


class Way(NamedTuple):
  """A layout on a slice; the number of microbatches is searched for each."""

  topology: str
  layout: str
  mesh: MeshSize
  weights: str


@dataclasses.dataclass(frozen=True)
class Given:
  """Fixed settings of a search; the search varies those that are None."""

  mesh: MeshSize | None = None
  layout: str | None = None
  weights: str | None = None
  microbatches: int | None = None
  remat: str | None = None


NOTHING = Given()
Compile = Callable[[Work, Setting], Plan]


def compiled(work: Work, setting: Setting) -> Plan:
  """The plan of a step run in one way."""
  place = placement(setting.topology, setting.mesh, setting.layout, setting.slices)
  return plan(setting.of(work), setting.topology, place)


def search(
  work: Work,
  topology: str,
  given: Given = NOTHING,
  attempt: Compile = compiled,
  shown: Callable[[Sequence[Way]], Iterable[Way]] = iter,
) -> list[Found]:
  """The settings that fit, fastest by estimate first.

  For each layout, dtype of weights and mesh whose weights alone fit, the number of microbatches is
  doubled until the step fits, and further as long as that makes it faster. Full rematerialisation
  ("all") is tried only if no number of microbatches was enough.

  Args:
    work: the step; its weights, microbatches and remat are varied.
    topology: a name of `chips.SLICES`.
    given: settings that are not varied.
    attempt: compiles one setting.
    shown: iterates over the ways, and may show the progress.

  Raises:
    UserError: of `attempt`; settings that do not divide over the mesh are left out before.
  """
  found: list[Found] = []
  for way in shown(ways(topology, given)):
    found += _microbatched(work, way, given, attempt)
  return sorted(found, key=lambda f: f.plan.estimate_seconds or math.inf)


def first(
  work: Work, topology: str, given: Given = NOTHING, attempt: Compile = compiled
) -> Found | None:
  """The first setting that fits: replicated before sharded weights, bfloat16 before int8."""
  for way in ways(topology, given):
    found = _microbatched(work, way, given, attempt, first_only=True)
    if found:
      return found[0]
  return None


def smallest(
  work: Work, topology: str, given: Given = NOTHING, attempt: Compile = compiled
) -> Found | None:
  """The first setting that fits the smallest slice of the same chip; None if none is enough."""
  family = [name for name, s in SLICES.items() if s.chip == slice_of(topology).chip]
  for name in sorted(family, key=lambda name: SLICES[name].devices):
    found = first(work, name, given, attempt)
    if found:
      return found
  return None


def ways(topology: str, given: Given) -> list[Way]:
  """The layouts, meshes and dtypes that a search tries, in order.

  Raises:
    UserError: an unknown layout.
  """
  if given.layout is not None:
    layouts.rules_of(given.layout)
  if given.mesh is None:
    lying = [(layout, mesh) for layout, mesh in meshes(slice_of(topology).devices)]
  else:
    lying = [(layout, given.mesh) for layout in layouts.LAYOUTS]
  storages = _WEIGHTS if given.weights is None else (given.weights,)
  return [
    Way(topology, layout, mesh, weights)
    for layout, mesh in lying
    if given.layout in (None, layout)
    for weights in storages
  ]


def meshes(devices: int) -> Iterator[tuple[str, MeshSize]]:
  """The layouts that make sense on so many devices, each with its meshes."""
  yield 'data', MeshSize(devices, 1)
  if devices == 1:
    return
  model = 2
  while model <= min(devices, 8):  # with more, all-reduces cost more than they save
    yield 'tensor', MeshSize(devices // model, model)
    yield 'sequence', MeshSize(devices // model, model)
    if model < devices:
      yield '2d', MeshSize(devices // model, model)
    model *= 2
  yield 'fully_sharded', MeshSize(devices, 1)


def divides(work: Work, setting: Setting) -> bool:
  """Whether the model and the rows of a step divide over the mesh."""
  try:
    layouts.check_divides(setting.layout, setting.mesh, work.rows, _dimensions(work.config))
  except UserError:
    return False
  return True


@functools.cache
def _dimensions(config: T5Config) -> dict[str, list[int]]:
  """Traced once for all settings."""
  shapes = expected_shapes(config)
  return layouts.dimensions_of(axes_of(list(shapes)), shapes)


def weight_bytes(work: Work, setting: Setting) -> int:
  """Bytes of the frozen weights on one device."""
  place = placement(setting.topology, setting.mesh, setting.layout, setting.slices)
  params = {'backbone': abstract_variables(setting.of(work))[0]['backbone']}
  shardings = place.shardings(params)
  pairs = zip(jax.tree.leaves(params), jax.tree.leaves(shardings), strict=True)
  return sum(math.prod(s.shard_shape(x.shape)) * np.dtype(x.dtype).itemsize for x, s in pairs)


def _microbatched(
  work: Work, way: Way, given: Given, attempt: Compile, first_only: bool = False
) -> list[Found]:
  """The numbers of microbatches that fit one layout, mesh and dtype of weights."""
  limit = slice_of(way.topology).chip.memory
  counts = [given.microbatches] if given.microbatches else _powers_of_two(work.batch)
  for remat in _REMAT if given.remat is None else (given.remat,):
    found: list[Found] = []
    for microbatches in counts if work.step == 'train' else (1,):
      setting = Setting(way.topology, way.layout, way.mesh, way.weights, microbatches, remat)
      if not divides(setting.of(work), setting):  # and more microbatches never will
        break
      if weight_bytes(work, setting) > limit:
        return []
      result = attempt(work, setting)
      if not result.fits:
        continue
      found.append(Found(setting, result))
      if first_only or _worse(found):
        break
    if found or work.step != 'train':
      return found
  return []


def _worse(found: list[Found]) -> bool:
  """Whether the last setting is slower than the one before."""
  times = [f.plan.estimate_seconds or 0.0 for f in found[-2:]]
  return len(times) == 2 and times[1] >= times[0]


def _powers_of_two(batch: int) -> list[int]:
  """1, 2, 4, ... into which a batch divides."""
  return [n for n in (2**i for i in range(batch.bit_length())) if batch % n == 0]
