"""The training step of one run of a sweep, which the plan compiles."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from prompt_jax.checkpoints.backbone import find
from prompt_jax.data.splits import LONGEST
from prompt_jax.models.t5.config import T5Config
from prompt_jax.prompts.initialise import without_initializers
from prompt_jax.runtime.devices import choose_device, default_dtype
from prompt_jax.scale import here
from prompt_jax.scale import plan as slices_of_tpus
from prompt_jax.scale.plan import Plan
from prompt_jax.scale.program import Work
from prompt_jax.sharding.placement import Placement
from prompt_jax.stacking import parts_for_caches, prompts_at_once


@dataclasses.dataclass(frozen=True)
class CellStep:
  """What one step of a run computes, according to its settings; the device decides the rest.

  Attributes:
    config: the architecture, with its memory settings and dropout.
    method: the prompt method, whose initial values do not matter; None for the model alone.
    patterns: of the trainable parameters.
    optimizer: of these.
    prompts: number of prompts that train together, 1 in a run of `train`.
    at_once: maximum number of them computed together; None to choose by device.
    batch: rows of each prompt.
    inputs: maximum tokens of an input; packed rows are planned as if they were not packed.
    targets: maximum tokens of a target.
    microbatches: None to choose by device.
    dtype: None to choose by device.
    weights: "int8", or None for `dtype`.
    device: see `runtime.devices`.
    mesh: None for one device, or for those of all processes.
    layout: of the mesh.
    slices: of the mesh.
  """

  config: T5Config
  method: nn.Module | None
  patterns: tuple[str, ...]
  optimizer: optax.GradientTransformation
  prompts: int
  at_once: int | None
  batch: int
  inputs: int
  targets: int
  microbatches: int | None
  dtype: str | None
  weights: str | None
  device: str
  mesh: Sequence[int] | None
  layout: str
  slices: int | None

  @property
  def program(self) -> str:
    """Equal for steps whose programs differ only in constants."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
    # Of the optimizer, the state for a matrix: learning rates are constants.
    some = {'prompt': {'table': jax.ShapeDtypeStruct((256, 256), jnp.float32)}}
    fields['optimizer'] = jax.eval_shape(self.optimizer.init, some)
    return repr(fields)


@dataclasses.dataclass(frozen=True)
class Compiled:
  """A step on some devices.

  Attributes:
    work: what is compiled.
    place: its mesh.
    plan: of the step.
    seconds: for TPU slices an estimate, here a lower bound; None if it does not fit.
  """

  work: Work
  place: Placement
  plan: Plan
  seconds: float | None


def step_of(given: Mapping[str, Any], prompts: int) -> CellStep:
  """The step of a command.

  Args:
    given: the arguments of `train`, or of `population` with its first "prompt" and "optimizer".
    prompts: that it trains.
  """
  base, devices, settings = given['base'], given['devices'], given['settings']
  config, _ = find(base.name, base.vocabulary).model()
  return CellStep(
    config=base.configured(config, given['dropout']),
    method=None if given['prompt'] is None else without_initializers(given['prompt']),
    patterns=settings.patterns,
    optimizer=given['optimizer'],
    prompts=prompts,
    at_once=given.get('at_once'),
    batch=given['batch_size'],
    inputs=given['input_length'] or LONGEST,
    targets=given['target_length'],
    microbatches=settings.microbatches,
    dtype=base.dtype,
    weights=base.weights,
    device=devices.device,
    mesh=devices.mesh,
    layout=devices.layout,
    slices=devices.slices,
  )


def compiled(step: CellStep, topology: str, slices: int = 1) -> Compiled:
  """Compiles a step.

  Args:
    step: of a run.
    topology: a name of `scale.chips.SLICES`, or `here.HERE`.
    slices: the number of slices.

  Raises:
    UserError: something does not divide, or there are no such devices.
  """
  if topology == here.HERE:
    devices = jax.devices(choose_device(step.device).platform)
  else:
    devices = slices_of_tpus.devices(topology, slices)
  place = here.placement(step.mesh, step.layout, step.slices, devices)
  work = _work(step, devices[0].platform, place.mesh.size)
  if topology == here.HERE:
    plan = here.plan(work, place)
    seconds = plan.ideal_seconds if plan.fits else None
  else:
    plan = slices_of_tpus.plan(work, topology, place)
    seconds = plan.estimate_seconds
  return Compiled(work, place, plan, seconds)


def _work(step: CellStep, platform: str, devices: int) -> Work:
  """The step of all prompts, where the device decides what the settings leave open."""
  alone = step.mesh is None and devices == 1
  at_once = step.at_once
  if step.at_once is None and alone and platform == 'cpu':
    at_once = prompts_at_once(step.prompts, step.batch, step.inputs)
  micro = step.microbatches or 1
  if step.microbatches is None and alone and platform == 'cpu':
    micro = parts_for_caches(step.batch, step.inputs)
  dtype = step.dtype or default_dtype(platform)
  return Work(
    config=dataclasses.replace(step.config, dtype=dtype),
    method=step.method,  # type: ignore[arg-type]
    weights=step.weights or dtype,
    prompts=step.prompts,
    at_once=at_once,
    batch=step.batch,
    inputs=step.inputs,
    targets=step.targets,
    microbatches=micro,
    patterns=step.patterns,
    optimizer=step.optimizer,
  )
