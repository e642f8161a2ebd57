"""Checkpoints that T5X wrote, in every form it ever had, listed without reading their arrays.

  one msgpack file       {"optimizer": {"target": ..., "state": ...}}, every array inside
  msgpack and zarr       the same file beside zarr folders; large arrays are specifications in it
  Orbax, 2023 to 2024    state/checkpoint, a msgpack file {"target": ..., "state": ...} with small
                         arrays and the names of the others, which are zarr folders beside it
  Orbax since            state/_METADATA, and arrays in zarr folders or in an OCDBT database

Places are local paths or addresses that tensorstore knows and can list (gs://, s3://, file://).
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_jax.checkpoints.formats import zarr_leaf
from prompt_jax.checkpoints.leaf import Leaves, of_array
from prompt_jax.errors import UserError

FILE = 'checkpoint'
METADATA = '_METADATA'
DATABASE = 'manifest.ocdbt'
# How Orbax marks a leaf that is not in its msgpack file; the second name was a mistake of 2022.
PLACEHOLDERS = ('PLACEHOLDER://', 'AGGREGATED://')
# tensorstore tries 32 times, for a quarter of an hour. With these a place that is out of reach is
# told within ten seconds.
RETRIES = {'max_retries': 4, 'initial_delay': '500ms', 'max_delay': '8s'}
_STEP = re.compile(r'checkpoint_(\d+)')
Spec = dict[str, Any]
Prefix = str | tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """What a checkpoint holds, unread.

  Attributes:
    form: in words.
    where: its place.
    leaves: by path: "target/..." are parameters, "state/..." the step and the optimizer.
  """

  form: str
  where: str
  leaves: Leaves

  @property
  def target(self) -> Leaves:
    """The parameters, by T5X's names."""
    begin = 'target/'
    return {p.removeprefix(begin): leaf for p, leaf in self.leaves.items() if p.startswith(begin)}


def is_checkpoint(folder: pathlib.Path) -> bool:
  """Whether a local folder looks like a checkpoint of T5X, or like a folder of them."""
  names = (FILE, METADATA, f'state/{FILE}', f'state/{METADATA}')
  return any((folder / name).is_file() for name in names) or bool(_steps(folder))


def open_checkpoint(place: str, prefix: Prefix = 'target/') -> Checkpoint:
  """Finds the form and lists the arrays; of those outside the msgpack file only metadata is read.

  Args:
    place: a checkpoint's folder or file; a local folder of `checkpoint_{step}` means the last.
    prefix: of the paths that matter, or several; '' for the optimizer's state as well. Nothing of
      the others is read, but for what is inside the msgpack file.

  Raises:
    UserError: nothing is there, it is out of reach, it is no checkpoint of T5X, or an array is
      missing.
  """
  place = _latest(place)
  base = _store(place)
  for folder in ('state/', ''):
    # Where both are, the msgpack file is the whole tree and the metadata only describe it.
    content = _get(base, folder + FILE, place)
    if content is not None:
      return _msgpack(_below(base, folder), content, place, prefix)
    metadata = _get(base, folder + METADATA, place)
    if metadata is not None:
      return _orbax(_below(base, folder), metadata, place, prefix)
  parent, _, name = place.rstrip('/').rpartition('/')  # the file itself
  if not parent.endswith(':/'):  # gs://BUCKET
    base = _store(parent or ('/' if place.startswith('/') else '.'))
    content = _get(base, name, place)
    if content is not None:
      return _msgpack(base, content, place, prefix)
  raise UserError(_nothing(place))


def _latest(place: str) -> str:
  folder = pathlib.Path(place)
  steps = _steps(folder) if folder.is_dir() and not (folder / FILE).is_file() else []
  return str(folder / f'checkpoint_{steps[-1]}') if steps else place


def _steps(folder: pathlib.Path) -> list[int]:
  return sorted(int(m[1]) for p in folder.iterdir() if (m := _STEP.fullmatch(p.name)))


def _nothing(place: str) -> str:
  if list(pathlib.Path(place).parent.glob(f'{pathlib.Path(place).name}*.index')):
    return (
      f'{place} is a checkpoint of Mesh TensorFlow. Make it one of T5X with '
      'scripts/convert_tf_checkpoint.py of T5X, and give that.'
    )
  return (
    f'{place} is no checkpoint of T5X: it has no {FILE!r} (msgpack) and no '
    f'{METADATA!r} (Orbax). '
    'Give the folder checkpoint_{step}, or the msgpack file.'
    + ' There may be no such bucket or folder either.'
    * ('://' in place)
  )


def _store(place: str) -> Spec:
  """tensorstore's specification of a folder."""
  import tensorstore as ts

  if '://' not in place:
    return {'driver': 'file', 'path': f'{pathlib.Path(place).absolute()}/'}
  try:
    spec = ts.KvStore.Spec(place.rstrip('/') + '/').to_json()
  except ValueError as e:
    raise UserError(f'{place!r} is no address that can be read: {" ".join(str(e).split())}') from e
  if spec['driver'] in ('gcs', 's3', 'http'):
    spec[f'{spec["driver"]}_request_retries'] = RETRIES
  return spec


def _below(base: Spec, path: str) -> Spec:
  return {**base, 'path': base.get('path', '') + path}


def _get(base: Spec, name: str, place: str) -> bytes | None:
  """The bytes of a file in a folder; None if there is no such file."""
  import tensorstore as ts

  if base['driver'] == 'file' and not pathlib.Path(base['path'], name).is_file():
    return None
  try:
    got = ts.KvStore.open(base).result().read(name).result()
  except ValueError as e:
    raise UserError(
      f'Cannot read {place}: {" ".join(str(e).split())[:300]}. Check the address and the network, '
      'or copy the checkpoint here and give its folder.'
    ) from None
  return None if got.state == 'missing' else got.value


def _msgpack(base: Spec, content: bytes, place: str, prefix: Prefix) -> Checkpoint:
  """From the msgpack file, that of Orbax too; `base` is the folder that holds it."""
  from flax import traverse_util

  tree, by_orbax = _tree(content, place)
  inside: Leaves = {}
  outside: dict[str, Spec] = {}
  names: dict[str, str] = {}
  stop = lambda path, value: 'driver' in value and 'kvstore' in value
  for path, value in traverse_util.flatten_dict(tree, sep='/', is_leaf=stop).items():
    if not path.startswith(prefix) or value is None:
      continue
    if isinstance(value, Mapping):
      outside[path] = {'driver': value['driver'], 'kvstore': _below(base, _folder(value, place))}
    elif isinstance(value, str) and value.startswith(PLACEHOLDERS):
      names[path] = _inner(value.partition('://')[2], value, place)
    else:
      inside[path] = of_array(np.asarray(value), f'{place}: {path}')
  outside |= _named(base, names, place)
  form = 'msgpack and zarr' if outside else 'one msgpack file'
  leaves = inside | zarr_leaf.open_all(outside, place)
  return Checkpoint('Orbax with a msgpack file' if by_orbax else form, place, leaves)


def _tree(content: bytes, place: str) -> tuple[Mapping[str, Any], bool]:
  """{"target": ..., "state": ...} of a msgpack file, and whether Orbax wrote it."""
  from flax import serialization

  try:
    tree = serialization.msgpack_restore(content)
  except Exception as e:  # msgpack raises many kinds for bytes that are something else
    raise UserError(
      f'{place} is damaged or no msgpack file of Flax: {type(e).__name__}: {e}. Copy it again.'
    ) from None
  by_orbax = isinstance(tree, Mapping) and 'target' in tree
  found = tree if by_orbax or not isinstance(tree, Mapping) else tree.get('optimizer')
  if not isinstance(found, Mapping) or not isinstance(found.get('target'), Mapping):
    got = sorted(tree) if isinstance(tree, Mapping) else type(tree).__name__
    raise UserError(f'{place} holds {got}; expected T5X\'s {{"optimizer": {{"target": ...}}}}.')
  return found, by_orbax


def _folder(spec: Mapping[str, Any], place: str) -> str:
  """Where a specification of T5X has its zarr folder, below the checkpoint's.

  The driver is where it was written (gfile, gcs with a placeholder for the bucket) and says nothing
  about where it is now. Old files have the path beside the kvstore.
  """
  return _inner(str(spec['kvstore'].get('path') or spec.get('path') or ''), dict(spec), place)


def _inner(path: str, said: Any, place: str) -> str:
  """A folder below the checkpoint's, and not elsewhere."""
  path = path.strip('/')
  if not path or '..' in path.split('/'):
    raise UserError(f'{place} names no folder of an array: {said}')
  return f'{path}/'


def _named(
  base: Spec,
  folders: Mapping[str, str],
  place: str,
  driver: str = 'zarr',
  database: bool | None = None,
) -> dict[str, Spec]:
  """Arrays that Orbax wrote, each as a folder of its database or of the checkpoint itself.

  Args:
    base: the checkpoint's folder.
    folders: by the array's path.
    place: the checkpoint, for messages.
    driver: of the arrays.
    database: whether there is one; None where the checkpoint does not say, before December 2025.
  """
  if database is None:
    database = bool(folders) and _get(base, DATABASE, place) is not None
  if database:
    stores = {p: {'driver': 'ocdbt', 'base': base, 'path': f} for p, f in folders.items()}
  else:
    stores = {p: _below(base, f) for p, f in folders.items()}
  return {p: {'driver': driver, 'kvstore': store} for p, store in stores.items()}


def _orbax(base: Spec, metadata: bytes, place: str, prefix: Prefix) -> Checkpoint:
  try:
    about = json.loads(metadata)
    entries = about['tree_metadata'].values()
    paths = {
      '/'.join(str(k['key']) for k in entry['key_metadata']): entry['value_metadata']
      for entry in entries
    }
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise UserError(f"{place}: {METADATA} is not one of Orbax's ({e!r}). Copy it again.") from None
  folders = {
    path: f'{path.replace("/", ".")}/'
    for path, value in paths.items()
    if path.startswith(prefix) and value.get('value_type') != 'None'
  }
  driver = 'zarr3' if about.get('use_zarr3') else 'zarr'
  specs = _named(base, folders, place, driver, about.get('use_ocdbt'))
  return Checkpoint('Orbax', place, zarr_leaf.open_all(specs, place))
