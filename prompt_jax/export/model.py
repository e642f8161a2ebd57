"""A frozen model from one form into another, leaf by leaf, and the proof that it is the same."""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prompt_jax import byte_size
from prompt_jax.checkpoints.backbone import Source, advised_tuning, check_vocabulary, find
from prompt_jax.checkpoints.formats import native
from prompt_jax.checkpoints.leaf import Leaves, compare
from prompt_jax.data.vocabulary import SentencePieceVocabulary, Vocabulary
from prompt_jax.errors import UserError
from prompt_jax.export import huggingface, t5x_writer
from prompt_jax.models.module import Config, module, only_t5
from prompt_jax.models.t5.config import T5Config

FORMS = {'native': 'prompt_jax', 't5x': 'T5X', 'hf': 'Hugging Face'}
Advance = Callable[[int], None]
# How a model is run, not what it is; no form but ours has them.
_RUNNING = {'dtype': 'float32', 'dropout_rate': 0.0, 'unroll': 1}


@dataclasses.dataclass(frozen=True)
class Model:
  """A model that is listed and unread.

  Attributes:
    name: for people.
    config: the architecture.
    leaves: by path.
    dtypes: in which they are to be written, by path, in the order of writing.
    vocabulary: of its token ids.
    tuning: the prompt method that it recommends, see `native.advice`.
  """

  name: str
  config: Config
  leaves: Leaves
  dtypes: dict[str, np.dtype]
  vocabulary: Vocabulary
  tuning: dict[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def t5(self) -> T5Config:
    """The architecture, for forms that hold T5s alone; a UserError for another model."""
    return only_t5(self.config, 'This format')

  @property
  def size(self) -> int:
    """Bytes of what is to be written."""
    return sum(int(np.prod(x.shape)) * self.dtypes[p].itemsize for p, x in self.leaves.items())

  def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
    """The leaves in the dtypes and the order of `dtypes`, read one at a time."""
    for path, dtype in self.dtypes.items():
      yield path, self.leaves[path].read(dtype)


def listed(source: Source, dtype: str | None) -> Model:
  """What is to be converted.

  Args:
    source: the model.
    dtype: of what is written; None keeps each leaf's own.

  Raises:
    UserError: it does not fit its architecture or its vocabulary.
  """
  words = source.vocabulary()
  config, leaves = source.model()
  check_vocabulary(source, words, config)
  kinds = {p: leaves[p].dtype if dtype is None else jnp.dtype(dtype) for p in sorted(leaves)}
  tuning = advised_tuning(source.where) if source.form == 'prompt_jax' else {}
  return Model(source.name, config, leaves, kinds, words, tuning)


def check_place(folder: pathlib.Path, size: int) -> None:
  """Raises UserError if the folder exists, or its disk has not `size` bytes left."""
  if folder.exists():
    raise UserError(f'{folder} exists already; give a folder that does not, or remove it.')
  parent = next(p for p in folder.absolute().parents if p.exists())
  free = shutil.disk_usage(parent).free
  if size > free:
    raise UserError(
      f'The weights take {byte_size.written(size)}, and {parent} has {byte_size.written(free)} '
      'left. Free some space, give another folder, or write bfloat16.',
      parameters=['dtype'],
    )


@contextlib.contextmanager
def appearing(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """A place beside the folder to write in, which becomes the folder unless the block fails.

  Raises:
    UserError: the disk does not take it; nothing is left then.
  """
  partial = folder.with_name(f'.{folder.name}.partial')
  shutil.rmtree(partial, ignore_errors=True)
  try:
    yield partial
    os.replace(partial, folder)
  except OSError as e:
    raise UserError(f'Cannot write {folder}: {e.strerror or e}.') from None
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def write(folder: pathlib.Path, to: str, model: Model, advance: Advance) -> dict[str, str]:
  """Writes the model and returns the checksum of every leaf.

  Args:
    folder: made.
    to: see FORMS.
    model: what to write.
    advance: called with 1 after each leaf.

  Raises:
    UserError: the source is damaged, the form has no such model, or the folder cannot be written.
  """
  sums: dict[str, str] = {}

  def summed() -> Iterator[tuple[str, np.ndarray]]:
    for path, array in model.arrays():
      sums[path] = _checksum(array)
      yield path, array
      advance(1)

  config, words = model.config, model.vocabulary
  if to == 'native':
    native.save(folder, model.name, config, summed(), model.dtypes, words, model.tuning)
  elif to == 'hf':
    huggingface.save(folder, model.t5, summed(), model.dtypes, words)
  else:
    t5x_writer.save(folder, summed(), words)
  return sums


def _checksum(array: np.ndarray) -> str:
  return hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data).hexdigest()


def reopen(folder: pathlib.Path, to: str, model: Model) -> Model:
  """What was written, listed.

  Raises:
    UserError: it has another architecture, vocabulary, shape or dtype than what was read.
  """
  # A T5X checkpoint says neither, so both are given where the shapes do not tell.
  source = find(str(folder), architecture=model.t5 if to == 't5x' else None)
  config, leaves = source.model()
  if to != 't5x' and _what_it_is(config) != _what_it_is(model.config):
    raise UserError(f'{folder} has the architecture {config}; expected {model.config}')
  compare(_shapes(model.leaves), _shapes(leaves), f'{folder}: the arrays')
  wrong = [path for path, leaf in leaves.items() if leaf.dtype != model.dtypes[path]]
  if wrong:
    raise UserError(f'{folder}: {wrong[0]} is {leaves[wrong[0]].dtype} and was written otherwise')
  beside = to != 't5x' or isinstance(model.vocabulary, SentencePieceVocabulary)
  if beside and source.vocabulary() != model.vocabulary:
    raise UserError(f'{folder} has another vocabulary than was written')
  return dataclasses.replace(model, leaves=leaves)


def _shapes(leaves: Leaves) -> dict[str, tuple[int, ...]]:
  return {path: leaf.shape for path, leaf in leaves.items()}


def _what_it_is(config: Any) -> Any:
  return dataclasses.replace(config, **_RUNNING)


def not_in_shapes(model: Model, folder: pathlib.Path) -> list[str]:
  """Fields of the architecture that a T5X checkpoint's shapes do not tell, as "name = value"."""
  guessed = _what_it_is(find(str(folder)).model()[0])
  own = _what_it_is(model.config)
  names = (field.name for field in dataclasses.fields(own))
  return [f'{n} = {getattr(own, n)!r}' for n in names if getattr(own, n) != getattr(guessed, n)]


def compare_values(written: Model, sums: dict[str, str], advance: Advance) -> None:
  """Reads everything back.

  Raises:
    UserError: a checksum differs.
  """
  for path, array in written.arrays():
    if _checksum(array) != sums[path]:
      raise UserError(f'{written.leaves[path].where} was not read back as it was written.')
    advance(1)


def logits(model: Model) -> np.ndarray:
  """float32[2, 8, V] for a fixed input, from the weights as they are written."""
  tokens = np.random.default_rng(0).integers(2, model.vocabulary.size, (2, 20)).astype(np.int32)
  inputs, targets = tokens[:, :12], tokens[:, 12:]
  inputs[1, 9:] = 0  # padding
  params = {path: jnp.asarray(x, jnp.float32) for path, x in model.arrays()}
  variables = {'params': traverse_util.unflatten_dict(params, sep='/')}
  return np.asarray(_run(_what_it_is(model.config), variables, inputs, targets))


@functools.partial(jax.jit, static_argnums=0)
def _run(config: Config, variables, inputs, targets):
  return module(config).apply(variables, inputs, targets)
