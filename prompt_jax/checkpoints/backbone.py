"""A frozen model, read into memory leaf by leaf, and written as a model folder of ours.

The model named "embedded" is such a folder inside the package.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from prompt_jax.checkpoints import source
from prompt_jax.checkpoints.check import check_params
from prompt_jax.checkpoints.fingerprint import combine, leaf_digests
from prompt_jax.checkpoints.formats import native
from prompt_jax.checkpoints.source import EMBEDDED, embedded_folder
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.int8 import quantise
from prompt_jax.runtime.devices import default_device, default_dtype

__all__ = [
  'EMBEDDED',
  'Backbone',
  'embedded_folder',
  'load_backbone',
  'save_backbone',
  'vocabulary_of',
]


@dataclasses.dataclass(frozen=True)
class Backbone:
  """A model to be prompted.

  Attributes:
    name: for people; a prompt file records it.
    config: the architecture.
    params: its tree, leaves of `config.dtype`, or matrices in `models.int8.Int8`.
    vocabulary: of its token ids.
    fingerprint: of the weights as stored, whatever dtype they were cast to.
  """

  name: str
  config: T5Config
  params: dict[str, Any]
  vocabulary: Vocabulary
  fingerprint: str


def _on_device(path: str, array: Any) -> Any:
  """The leaf on the default device; waits, so that only one copy is ever in flight."""
  return jax.block_until_ready(jax.device_put(array))


def load_backbone(
  name: str,
  dtype: str | None = None,
  *,
  vocabulary: str | None = None,
  architecture: T5Config | None = None,
  place: Callable[[str, Any], Any] = _on_device,
  weights: str | None = None,
) -> Backbone:
  """Reads a model, one leaf at a time, cast as it is read and placed before the next.

  The host needs at most twice the largest leaf beside what `place` keeps.

  Args:
    name: a model folder, a T5X checkpoint, ...; see `source.find`.
    dtype: compute and storage dtype; None is float32 on CPU and bfloat16 elsewhere.
    vocabulary: as in `load_vocabulary`, in place of the model's own.
    architecture: see `source.find`.
    place: (path, leaf) -> the leaf that stays, on one device or sharded over several.
    weights: "int8" to store matrices so, in a quarter of the memory of float32, which cannot be
      trained; None for `dtype`.

  Raises:
    UserError: the model is missing or damaged, does not fit its architecture or its vocabulary, or
      has weights that are not finite. Nothing is loaded then.
  """
  if weights not in (None, 'int8'):
    raise UserError(f'WEIGHTS is {weights!r}; expected None or int8.')
  found = source.find(name, vocabulary, architecture)
  words = found.vocabulary()
  config, leaves = found.model()
  source.check_vocabulary(found, words, config)
  dtype = dtype or default_dtype(default_device().platform)
  config = dataclasses.replace(config, dtype=dtype)
  flat: dict[str, Any] = {}
  digests: dict[str, bytes] = {}
  for path in sorted(leaves):
    array = leaves[path].read(dtype)
    # The fingerprint reads values as bfloat16, so the cast before it does not matter.
    digests |= leaf_digests(path, array)
    flat[path] = place(path, quantise(path, array) if weights else array)
  params = traverse_util.unflatten_dict(flat, sep='/')
  return Backbone(found.name, config, params, words, combine(digests))


def save_backbone(
  folder: str | os.PathLike,
  *,
  name: str,
  config: T5Config,
  params: dict[str, Any],
  vocabulary: Vocabulary,
  dtype: str = 'float32',
) -> None:
  """Writes a model folder that `load_backbone` reads.

  Args:
    folder: made if absent; an older model in it is replaced.
    name: for people.
    config: the architecture.
    params: its tree.
    vocabulary: copied into the folder.
    dtype: of the stored weights.

  Raises:
    UserError: the folder cannot be written, or the tree is not that of the architecture.
  """
  check_params(config, params)
  flat = traverse_util.flatten_dict(params, sep='/')
  kind = jax.numpy.dtype(dtype)
  arrays = ((path, np.asarray(x).astype(kind)) for path, x in flat.items())
  dtypes = dict.fromkeys(flat, kind)
  native.save(pathlib.Path(folder), name, config, arrays, dtypes, vocabulary)


def vocabulary_of(name: str, vocabulary: str | None = None) -> Vocabulary:
  """The vocabulary of a model, without its weights; arguments as in `load_backbone`."""
  return source.find(name, vocabulary).vocabulary()
