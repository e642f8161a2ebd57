"""Checks the cells of a sweep, and computes their sizes, before any of them runs."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prompt_jax.checkpoints.leaf import expected_shapes
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.layers import scaled_axis
from prompt_jax.prompts.base import first_values
from prompt_jax.prompts.initialise import without_initializers
from prompt_jax.sweeps.cell_step import step_of
from prompt_jax.sweeps.cells import TOGETHER, Job
from prompt_jax.training.objective import count, split

BYTES = {'float32': 4, 'bfloat16': 2}


@dataclasses.dataclass(frozen=True)
class Size:
  """The size of a model and of its trainable parameters.

  Attributes:
    trainable: number of trainable parameters.
    parameters: of the model.
    weights: bytes of the model by dtype, or only in the dtype that the cell sets.
  """

  trainable: int
  parameters: int
  weights: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Checked:
  """What is known about a command before it runs.

  Attributes:
    size: of its first cell.
    steps: number of training steps.
    program: equal for commands whose steps compile to the same, see `cell_step`.
  """

  size: Size
  steps: int
  program: str


@dataclasses.dataclass(frozen=True)
class Resolver:
  """Reads the configuration of the commands of a sweep.

  Attributes:
    arguments: from a command to the arguments of `train`; of a population to the shared ones, and
      the "prompt" (the longest) and "optimizer" of one of its variants.
    varying: from a command of `train` and some macros and bindings to those in which the prompts of
      one population may differ.
    compiler: the command line of a process that compiles steps, see `planning.plans`.
  """

  arguments: Callable[[Job], dict[str, Any]]
  varying: Callable[[Job, Collection[str]], set[str]]
  compiler: Sequence[str]


def checked(job: Job, resolver: Resolver) -> Checked:
  """Reads the configuration of a command, and creates everything that needs no data.

  Raises:
    UserError: with the cell's name: an unknown name or macro, a value of another kind, no model.
  """
  try:
    given = resolver.arguments(job)
    step = step_of(given, len(job.cells))
    return Checked(_size(given, step.config), given['settings'].steps, step.program)
  except UserError as e:
    raise UserError(f'Cell {job.name}: {e}', e.parameters) from e


def together_axes(jobs: Sequence[Job], axes: Sequence[str], resolver: Resolver) -> Collection[str]:
  """The axes of a sweep that may vary within one population.

  Args:
    jobs: every `train` of the sweep.
    axes: of the sweep.
    resolver: of commands.
  """
  job = next((j for j in jobs if '--train=all' not in j.flags), None)
  if job is None:
    return set(TOGETHER)
  names = [name for name in axes if name.isupper() or '.' in name]
  try:
    return set(TOGETHER) | resolver.varying(job, names)
  except UserError as e:
    raise UserError(f'Cell {job.name}, as one of a population: {e}', e.parameters) from e


def _size(given: dict[str, Any], cfg: T5Config) -> Size:
  shapes = {p: jax.ShapeDtypeStruct(s, jnp.float32) for p, s in expected_shapes(cfg).items()}
  params: dict[str, Any] = {'backbone': traverse_util.unflatten_dict(shapes, sep='/')}
  if given['prompt'] is not None:
    # Initial values may need the words of a task; their shapes do not.
    method = without_initializers(given['prompt'])
    _, made = jax.eval_shape(lambda key: first_values(method, key, cfg.sizes), jax.random.key(0))
    params['prompt'] = made.get('params', {})
  trainable, _ = split(params, given['settings'].patterns)
  sizes = {path: int(np.prod(shape.shape)) for path, shape in shapes.items()}
  return Size(count(trainable), sum(sizes.values()), _weights(sizes, given))


def _weights(sizes: dict[str, int], given: dict[str, Any]) -> dict[str, int]:
  total = sum(sizes.values())
  base = given['base']
  if base.weights == 'int8':
    matrices = sum(n for path, n in sizes.items() if scaled_axis(path) is not None)
    return {'int8': matrices + 4 * (total - matrices)}
  dtypes = [base.dtype] if base.dtype else list(BYTES)
  return {dtype: BYTES[dtype] * total for dtype in dtypes if dtype in BYTES}
