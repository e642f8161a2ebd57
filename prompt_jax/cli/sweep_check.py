"""What is wrong with a cell, and how large it is, before any of them runs."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prompt_jax.checkpoints.source import find
from prompt_jax.cli import arguments, cells, config, data, population, train
from prompt_jax.cli.candidates import Parts
from prompt_jax.cli.sweep_cells import TOGETHER, Cell, Job
from prompt_jax.errors import UserError
from prompt_jax.models.int8 import scaled_axis
from prompt_jax.prompts.base import placeholder
from prompt_jax.prompts.initialise import without_initializers
from prompt_jax.training.losses import Loss
from prompt_jax.training.partition import count, split
from prompt_jax.training.settings import Settings

BYTES = {'float32': 4, 'bfloat16': 2}


@dataclasses.dataclass(frozen=True)
class Size:
  """Of a model and what trains on it.

  Attributes:
    trainable: numbers that train.
    parameters: of the model.
    weights: bytes that the model takes by dtype, or in the one that the cell says.
  """

  trainable: int
  parameters: int
  weights: dict[str, int]


def checked(job: Job) -> Size:
  """Reads the configuration of a command and makes all that needs no data; its first cell's size.

  Raises:
    UserError: with the cell's name: an unknown name or macro, a value of another kind, no model.
  """
  try:
    args = arguments.parse([job.verb, *job.flags])
    if job.verb == 'train':
      train.load(args)
      return _size(config.built(train.train))
    population.load(args)
    given = config.built(population.population)
    given['choose_task']()
    parts = given['choose_parts']()
    return _size({**given, 'prompt': parts.prompt})
  except UserError as e:
    raise UserError(f'Cell {job.name}: {e}') from e


def together_axes(jobs: Sequence[Job], axes: Sequence[str]) -> Collection[str]:
  """The axes of a sweep in which prompts of one population may differ.

  Args:
    jobs: every `train` of the sweep.
    axes: of the sweep.
  """
  varies = set(TOGETHER)
  job = next((j for j in jobs if '--train=all' not in j.flags), None)
  if job is None:
    return varies
  flags = [flag for flag in job.flags if not flag.startswith('--seed=')]
  try:
    population.load(arguments.parse(['population', *flags]))
  except UserError as e:
    raise UserError(f'Cell {job.name}, as one of a population: {e}') from e
  for name in axes:
    if name.isupper() or '.' in name:
      try:
        cells.check_names({name: ()}, [Parts, data.choose], [Settings, Loss])
      except UserError:
        continue
      varies.add(name)
  return varies


def _size(given: dict[str, Any]) -> Size:
  cfg, leaves = find(given['base'].model, given['base'].vocabulary).model()
  shapes = {path: jax.ShapeDtypeStruct(leaf.shape, jnp.float32) for path, leaf in leaves.items()}
  params: dict[str, Any] = {'backbone': traverse_util.unflatten_dict(shapes, sep='/')}
  if given['prompt'] is not None:
    # First values may need the words of a task; their shapes do not.
    method = without_initializers(given['prompt'])
    context = placeholder(cfg.encoder_dims, cfg.decoder_dims)
    made = jax.eval_shape(method.init, jax.random.key(0), context)
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


def first_of(found: Sequence[Cell]) -> list[Cell]:
  """One cell of each setting: seeds need no check of their own."""
  return list({repr(dict(cell.setting)): cell for cell in reversed(found)}.values())[::-1]
