"""A frozen model: found wherever it is, read into memory leaf by leaf, written as a folder of ours.

It may be a folder of ours or of Hugging Face, a T5X checkpoint, or a GGUF file. The model named
"embedded" is a folder inside the package.
"""

import dataclasses
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util

from prompt_jax.causal_formats import gguf
from prompt_jax.causal_formats import huggingface as causal
from prompt_jax.causal_formats.tokenizer import frame
from prompt_jax.checkpoints import hub, on_disk
from prompt_jax.checkpoints.formats import huggingface_folder, huggingface_tokens, native
from prompt_jax.checkpoints.formats.huggingface import MODELS, leaves_from_huggingface
from prompt_jax.checkpoints.formats.t5x import from_t5x
from prompt_jax.checkpoints.formats.t5x_checkpoint import is_checkpoint, open_checkpoint
from prompt_jax.checkpoints.leaf import Leaves, check_params
from prompt_jax.checkpoints.prompt_file import FOREIGN
from prompt_jax.data.vocabulary import FILE_NAME, Vocabulary, load_vocabulary
from prompt_jax.errors import UserError
from prompt_jax.models.causal.config import CausalConfig
from prompt_jax.models.module import Config
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.layers import quantise
from prompt_jax.runtime.devices import default_device, default_dtype

EMBEDDED = 'embedded'
# Names under which a vocabulary may lie beside a T5X checkpoint.
VOCABULARIES = (FILE_NAME, huggingface_tokens.PIECES)
BYTE_ROWS = 384


@dataclasses.dataclass(frozen=True)
class Source:
  """A model that is found and not yet read.

  Attributes:
    form: in words.
    where: the folder, file or address.
    name: for people.
    vocabulary: reads the vocabulary; a UserError if none is known.
    model: lists the weights: the architecture, and its leaves by path.
  """

  form: str
  where: str
  name: str
  vocabulary: Callable[[], Vocabulary]
  model: Callable[[], tuple[Config, Leaves]]


def embedded_folder() -> pathlib.Path:
  """The model that every installation has."""
  return pathlib.Path(__file__).parent.parent / 'embedded'


def whole_path(name: str) -> str:
  """A model or a vocabulary, named so that it means the same in any folder."""
  if name in (EMBEDDED, 'bytes'):
    return name
  path, count = pathlib.Path(name), ''
  if not path.exists():  # a vocabulary with its number of sentinels
    name_alone, colon, number = name.rpartition(':')
    path, count = pathlib.Path(name_alone), colon + number
  return str(path.resolve()) + count if path.name and path.exists() else name


def find(name: str, vocabulary: str | None = None, architecture: T5Config | None = None) -> Source:
  """Tells what kind of model a name means.

  Args:
    name: "embedded", a folder of ours or of Hugging Face, a T5X checkpoint (a folder, a file or an
      address such as gs://...), or OWNER/NAME on the Hugging Face hub.
    vocabulary: as in `load_vocabulary`, in place of the model's own; a T5X checkpoint has none.
    architecture: of a T5X checkpoint, where shapes do not tell it (see `formats.t5x.from_t5x`).

  Raises:
    UserError: there is no such model, or it is of no known kind.
  """
  source = _find(name, architecture)
  if architecture is not None and source.form != 'T5X':
    raise UserError(f'{name} says its own architecture; one is given only for a T5X checkpoint.')
  if vocabulary is None:
    return source
  return dataclasses.replace(source, vocabulary=lambda: load_vocabulary(vocabulary))


def advised_tuning(name: str) -> dict[str, Any]:
  """How a model is tuned best by its own account, see `native.advice`; {} where it says nothing.

  Args:
    name: as in `find`; nothing is downloaded.
  """
  folder = embedded_folder() if name == EMBEDDED else pathlib.Path(name)
  if not os.path.isfile(folder / native.CONFIG):
    return {}
  return native.advice(folder, on_disk.read_json(folder / native.CONFIG))


def check_vocabulary(source: Source, words: Vocabulary, config: Config) -> None:
  """Refuses a vocabulary that is not the model's.

  Raises:
    UserError: it has ids that the embedding table has not, or umT5's number of sentinels, which is
      not T5's, is not said.
  """
  per_layer = isinstance(config, T5Config) and config.relpos_per_layer
  if per_layer and getattr(words, 'assumed', False):
    raise UserError(
      f'{source.where}: the vocabulary of a umT5 does not say its number of sentinels (umT5 has '
      f'300, other T5s {words.extra_ids}). Give it behind the vocabulary: spiece.model:300',
      ['vocabulary'],
    )
  if words.size > config.vocab_size:
    raise UserError(
      f'{source.where}: the vocabulary has {words.size} ids, the embedding table '
      f'{config.vocab_size} rows; it belongs to another model'
    )


def _find(name: str, architecture: T5Config | None) -> Source:
  if '://' in name:
    return _t5x(name, architecture)
  folder = embedded_folder() if name == EMBEDDED else pathlib.Path(name)
  if os.path.isfile(folder):  # pathlib raises where a name is too long
    if name.endswith(gguf.SUFFIXES):
      return _gguf(name)
    if folder.suffix in ('.safetensors', '.bin', '.json', '.model'):
      raise UserError(f'{name} is one file of a model; give its folder, {folder.parent}.')
    return _t5x(name, architecture)
  if not os.path.exists(folder) and hub.is_name(name):
    folder = hub.download(name)
  if not os.path.isdir(folder):
    on_hub = hub.with_owner(name)
    raise UserError(
      f'No model {name!r}: there is no such folder. Give a model folder (of prompt_jax or of '
      f'Hugging Face), a T5X checkpoint, a GGUF file, OWNER/NAME on the Hugging Face hub '
      f'({f"this one is {on_hub}" if on_hub else "such as google/flan-t5-small"}), or '
      f'"{EMBEDDED}" for the model inside the package.'
    )
  if (folder / native.CONFIG).is_file():
    about = on_disk.read_json(folder / native.CONFIG)
    if about.get('model_type') in causal.MODELS:
      return _causal(folder, name, about)
    if about.get('model_type', MODELS[0]) not in MODELS:
      raise UserError(
        f'{folder}: the model is of type {about["model_type"]!r}; expected one of '
        f'{", ".join((*MODELS, *causal.MODELS))}.'
      )
    if 'model_type' in about:
      return _huggingface(folder, name, about)
    return _native(folder, about)
  if is_checkpoint(folder):
    return _t5x(str(folder), architecture)
  raise UserError(
    f'{folder} is no model folder: it has no {native.CONFIG}, and no checkpoint of T5X either. '
    f'{FOREIGN}'
  )


def _native(folder: pathlib.Path, about: Mapping[str, Any]) -> Source:
  config = native.architecture(folder, about)  # told before its files are looked at

  def model() -> tuple[Config, Leaves]:
    return config, native.leaves(folder, config, about)

  words = functools.partial(native.vocabulary, folder, about)
  return Source('prompt_jax', str(folder), about.get('name') or folder.name, words, model)


def _causal(folder: pathlib.Path, name: str, about: Mapping[str, Any]) -> Source:
  words = functools.cache(lambda: causal.vocabulary(folder, about))
  model = lambda: causal.model(folder, about, words(), frame(words()))
  return Source('Hugging Face', str(folder), _short(folder, name), words, model)


def _gguf(name: str) -> Source:
  file = gguf.GgufModel(name)
  words = functools.cache(file.vocabulary)
  return Source('GGUF', name, file.title(), words, lambda: file.model(words(), frame(words())))


def _short(folder: pathlib.Path, name: str) -> str:
  return name if hub.is_name(name) and not pathlib.Path(name).exists() else folder.resolve().name


def _huggingface(folder: pathlib.Path, name: str, about: Mapping[str, Any]) -> Source:
  huggingface_folder.architecture(
    folder, about
  )  # another kind of model is told before its files are looked at

  def model() -> tuple[T5Config, Leaves]:
    return leaves_from_huggingface(huggingface_folder.weights(folder), about, str(folder))

  words = functools.partial(huggingface_tokens.vocabulary, folder, about)
  return Source('Hugging Face', str(folder), _short(folder, name), words, model)


def _t5x(place: str, architecture: T5Config | None) -> Source:
  def model() -> tuple[T5Config, Leaves]:
    checkpoint = open_checkpoint(place)
    return from_t5x(checkpoint.target, checkpoint.where, architecture)

  def words() -> Vocabulary:
    path = pathlib.Path(place)
    beside = (folder / name for folder in (path, path.parent) for name in VOCABULARIES)
    found = next((file for file in beside if file.is_file()), None)
    if found is not None:
      return load_vocabulary(found)
    rows = model()[0].vocab_size
    hint = ' (this one has as many rows as ByT5)' if rows == BYTE_ROWS else ''
    raise UserError(
      f'{place}: a T5X checkpoint holds no vocabulary. Give as the vocabulary the SentencePiece '
      f'model that it was trained with, or "bytes" for a ByT5{hint}.',
      parameters=['vocabulary'],
    )

  parts = [part for part in place.split('/') if part]
  return Source('T5X', place, '/'.join(parts[-2:]), words, model)


@dataclasses.dataclass(frozen=True)
class Backbone:
  """A model to be prompted.

  Attributes:
    name: for people; a prompt file records it.
    config: the architecture.
    params: its tree, leaves of `config.dtype`, or matrices in `models.t5.layers.Int8`.
    vocabulary: of its token ids.
    fingerprint: of the weights as stored, whatever dtype they were cast to.
  """

  name: str
  config: Config
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
    name: a model folder, a T5X checkpoint, ...; see `find`.
    dtype: compute and storage dtype; None is float32 on CPU and bfloat16 elsewhere.
    vocabulary: as in `load_vocabulary`, in place of the model's own.
    architecture: see `find`.
    place: (path, leaf) -> the leaf that stays, on one device or sharded over several.
    weights: "int8" to store matrices so, in a quarter of the memory of float32, which cannot be
      trained; None for `dtype`.

  Raises:
    UserError: the model is missing or damaged, does not fit its architecture or its vocabulary, or
      has weights that are not finite. Nothing is loaded then.
  """
  if weights not in (None, 'int8'):
    raise UserError(f'weights is {weights!r}; expected None or int8.', ['weights'])
  found = find(name, vocabulary, architecture)
  words = found.vocabulary()
  config, leaves = found.model()
  check_vocabulary(found, words, config)
  dtype = dtype or default_dtype(default_device().platform)
  config = dataclasses.replace(config, dtype=dtype)
  flat: dict[str, Any] = {}
  digests: dict[str, bytes] = {}
  for path in sorted(leaves):
    array = leaves[path].read(dtype)
    # The fingerprint reads values as bfloat16, so the cast before it does not matter.
    digests |= leaf_digests(path, array)
    flat[path] = place(path, quantise(path, array) if weights else array)
  if isinstance(config, CausalConfig):  # a prompt means nothing in another frame
    around = repr((config.before, config.between, config.reads_end)).encode()
    digests['frame'] = hashlib.sha256(around).digest()
  params = traverse_util.unflatten_dict(flat, sep='/')
  return Backbone(found.name, config, params, words, combine(digests))


def save_backbone(
  folder: str | os.PathLike,
  *,
  name: str,
  config: Config,
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
  return find(name, vocabulary).vocabulary()


SAMPLE = 1024


def fingerprint(params: Mapping[str, Any]) -> str:
  """A hash of names, shapes and a sample of the values of every parameter.

  The same weights have the same fingerprint in any form: layers stacked or apart, NumPy or JAX,
  float32 or bfloat16. It reads at most 1024 evenly spaced values of each parameter of each
  layer, leaf by leaf, so it is quick for any size; weights that differ only between the sampled
  values, or by less than bfloat16 can tell, are not told apart.

  Args:
    params: the backbone's tree, with T5X's names; leaves under a key `layers` hold one parameter
      a layer along their first axis.

  Returns:
    16 hexadecimal digits.
  """
  digests: dict[str, bytes] = {}
  for path, leaf in traverse_util.flatten_dict(dict(params), sep='/').items():
    digests |= leaf_digests(path, leaf)
  return combine(digests)


def leaf_digests(path: str, leaf: Any) -> dict[str, bytes]:
  """The hash of each parameter in one leaf, so that leaves need not be in memory together."""
  digests = {}
  for name, shape, values in _parts(path, leaf):
    rounded = values.astype(ml_dtypes.bfloat16)
    head = f'{name}:{",".join(map(str, shape))}:'.encode()
    digests[name] = hashlib.sha256(head + rounded.tobytes()).digest()
  return digests


def combine(digests: Mapping[str, bytes]) -> str:
  """The fingerprint of parameters from the hashes of all of them, in any order."""
  return hashlib.sha256(b''.join(digests[name] for name in sorted(digests))).hexdigest()[:16]


def _parts(path: str, leaf: Any) -> Iterator[tuple[str, tuple[int, ...], np.ndarray]]:
  """(name, shape, sampled values float32) of each layer's parameter in one leaf."""
  stacked = re.fullmatch(r'((?:.*/)?)layers(/.*)', path)
  if not stacked:
    yield path, tuple(leaf.shape), _sample(leaf, stacked=False)[0]
    return
  for i, values in enumerate(_sample(leaf, stacked=True)):
    yield f'{stacked[1]}layers_{i}{stacked[2]}', tuple(leaf.shape[1:]), values


def _sample(leaf: Any, stacked: bool) -> np.ndarray:
  """float32[layers or 1, at most SAMPLE] values of one leaf, without copying the leaf."""
  if isinstance(leaf, jax.Array) and all(d.platform == 'cpu' for d in leaf.devices()):
    leaf = np.asarray(leaf)  # a view; indexing a jax.Array would compile a gather
  shape = leaf.shape[1:] if stacked else leaf.shape
  size = int(np.prod(shape))
  index = np.unravel_index(np.arange(min(size, SAMPLE)) * size // max(min(size, SAMPLE), 1), shape)
  values = leaf[(slice(None), *index)] if stacked else leaf[index][None]
  return np.asarray(values).astype(np.float32)
