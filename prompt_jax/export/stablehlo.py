"""A model and prompts as programs that JAX alone loads, for CPU, CUDA and TPU.

The weights, and the prompts of each group, are inputs of the programs and lie beside them, so that
prompts can be added without a new program; sizes of a batch are free. See `prompt_groups`.
"""

import dataclasses
import functools
import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from prompt_jax.checkpoints import leaf
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.data.vocabulary import FILE_NAME, SentencePieceVocabulary, Vocabulary
from prompt_jax.errors import UserError, install
from prompt_jax.export.prompt_groups import SCORE, WRITE, Axes, Group
from prompt_jax.export.served_prompt import ServedPrompt
from prompt_jax.loading import Tuned
from prompt_jax.named_prompts import NamedFile

PLATFORMS = ('cpu', 'cuda', 'tpu')
WEIGHTS, PROMPTS = 'weights.safetensors', 'prompts.safetensors'
PROGRAMS = {'write': WRITE, 'score': SCORE}
SUFFIX = '.stablehlo'


@dataclasses.dataclass(frozen=True)
class PlacedPrompt(ServedPrompt):
  """A prompt that programs know by its place.

  Attributes:
    group: number of the group of programs.
    place: its place there.
  """

  group: int
  place: int

  def source(self, text: str) -> list[int]:
    """The ids of the text; the prompt has none."""
    return self.text_ids(text)

  def about(self) -> dict[str, Any]:
    return {'name': self.name, 'group': self.group, 'place': self.place, **self.facts()}


def placed(
  found: Sequence[NamedFile], ready: Sequence[Tuned], groups: Sequence[Group]
) -> list[PlacedPrompt]:
  """The prompts in order, each with the group that answers with it."""
  where = {n: (g, k) for g, group in enumerate(groups) for k, n in enumerate(group.names)}
  return [
    PlacedPrompt(f.name, tuned, *where[f.name]) for f, tuned in zip(found, ready, strict=True)
  ]


def check_installed() -> None:
  """Refuses to write without what `jax.export` needs and JAX does not bring.

  Raises:
    UserError: flatbuffers is not installed.
  """
  if importlib.util.find_spec('flatbuffers') is None:
    raise UserError(f'flatbuffers is not installed; {install("stablehlo")}')


def save(folder: pathlib.Path, weights: Mapping[str, Any], groups: Sequence[Group]) -> None:
  """Writes weights, prompts and programs.

  Args:
    folder: made if absent.
    weights: of the model, by path.
    groups: of prompts.

  Raises:
    UserError: the folder cannot be written.
  """
  shapes = {path: (x.shape, np.dtype(x.dtype)) for path, x in weights.items()}
  arrays = ((path, np.asarray(x)) for path, x in weights.items())
  leaf.write_safetensors(folder / WEIGHTS, shapes, arrays)
  for number, group in enumerate(groups):
    own = folder / folder_of(number)
    own.mkdir(exist_ok=True)
    arrays_of_group = {name: np.ascontiguousarray(x) for name, x in group.arrays.items()}
    write_atomically(own / PROMPTS, safetensors.numpy.save(arrays_of_group))
    for name in PROGRAMS:
      write_atomically(own / f'{name}{SUFFIX}', program(group, name, weights).serialize())


def save_vocabulary(folder: pathlib.Path, words: Vocabulary) -> None:
  """Writes the SentencePiece model of the ids; bytes need none."""
  if isinstance(words, SentencePieceVocabulary):
    write_atomically(folder / FILE_NAME, words.model())


def folder_of(group: int) -> str:
  return f'group_{group}'


def about(groups: Sequence[Group]) -> list[dict[str, Any]]:
  """What a program must know of each group, as JSON."""
  return [
    {'folder': folder_of(i), 'prompts': list(group.names), 'longest': group.longest}
    for i, group in enumerate(groups)
  ]


def program(
  group: Group, name: str, weights: Mapping[str, Any], platforms: Sequence[str] = PLATFORMS
) -> Any:
  """One function of a group as `jax.export.Exported`, for any sizes of a batch and of prompts.

  Args:
    group: the prompts.
    name: of PROGRAMS.
    weights: arrays of their shapes.
    platforms: that it is for.

  Raises:
    UserError: the code of a method needs to know a size.
  """
  from jax import export

  function: Callable[..., Any] = getattr(group, name)
  arguments = PROGRAMS[name].values()
  every = [*group.axes.values(), *(axes for _, axes in arguments)]
  free = sorted({axis for axes in every for axis in axes if axis})
  # A target has a token and its end; a size that only a constraint names would not be known.
  least = ['u >= 2'] if 'u' in free else []
  sizes = export.symbolic_shape(', '.join(free), constraints=least)
  known = dict(zip(free, sizes, strict=True))
  spec = functools.partial(_spec, known)
  given = (
    {path: jax.ShapeDtypeStruct(x.shape, x.dtype) for path, x in weights.items()},
    {path: spec(x.dtype, group.axes[path], x.shape) for path, x in group.arrays.items()},
    *(spec(dtype, axes, axes) for dtype, axes in arguments),
  )
  try:
    return export.export(jax.jit(function), platforms=platforms)(*given)
  except Exception as e:  # code of a method may ask for a size, and raise anything
    reason = str(e).splitlines()[0].rstrip('.')
    raise UserError(
      f'{", ".join(group.names)}: {type(group.model.prompt).__name__} cannot be a program for '
      f'texts of any length ({reason}). Answer with it by infer.'
    ) from e


def _spec(
  known: Mapping[str, Any], dtype: Any, axes: Axes, shape: Sequence[Any]
) -> jax.ShapeDtypeStruct:
  sizes = [n if axis is None else known[axis] for axis, n in zip(axes, shape, strict=True)]
  return jax.ShapeDtypeStruct(tuple(sizes), dtype)
