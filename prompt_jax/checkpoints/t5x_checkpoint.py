"""Checkpoints that T5X wrote, in every form it ever had, listed without reading their arrays.

  one msgpack file       {"optimizer": {"target": ..., "state": ...}}, every array inside
  msgpack and zarr       the same file beside zarr folders; large arrays are specifications in it
  Orbax                  state/_METADATA, and arrays in an OCDBT database or in zarr folders

Places are local paths or addresses that tensorstore knows (gs://, s3://, file://, http://).
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_jax.checkpoints import zarr_leaf
from prompt_jax.checkpoints.leaf import Leaves, of_array
from prompt_jax.errors import UserError

FILE = 'checkpoint'
METADATA = '_METADATA'
_STEP = re.compile(r'checkpoint_(\d+)')
Spec = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """What a checkpoint holds, unread.

  Attributes:
    form: in words.
    where: its place.
    leaves: by path: "target/..." are parameters, "state/..." the step and the optimiser.
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
  names = (FILE, METADATA, f'state/{METADATA}')
  return any((folder / name).is_file() for name in names) or bool(_steps(folder))


def open_checkpoint(place: str, prefix: str = 'target/') -> Checkpoint:
  """Finds the form and lists the arrays; of those outside the msgpack file only metadata is read.

  Args:
    place: a checkpoint's folder or file; a local folder of `checkpoint_{step}` means the last.
    prefix: of the paths that matter; '' for the optimiser's state as well.

  Raises:
    UserError: nothing is there, it is no checkpoint of T5X, or an array is missing.
  """
  place = _latest(place)
  base = _store(place)
  for folder in ('state/', ''):
    metadata = _get(base, folder + METADATA, place)
    if metadata is not None:
      return _orbax(_below(base, folder), metadata, place, prefix)
  content = _get(base, FILE, place)
  if content is None:  # the address of the file itself
    *parents, name = place.rstrip('/').split('/')
    place_of_file, base = place, _store('/'.join(parents) or ('/' if place[0] == '/' else '.'))
    content = _get(base, name, place)
    if content is None:
      raise UserError(_nothing(place_of_file))
  return _msgpack(base, content, place, prefix)


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
  )


def _store(place: str) -> Spec:
  """tensorstore's specification of a folder."""
  import tensorstore as ts

  if '://' not in place:
    return {'driver': 'file', 'path': f'{pathlib.Path(place).absolute()}/'}
  try:
    return ts.KvStore.Spec(place.rstrip('/') + '/').to_json()
  except ValueError as e:
    raise UserError(f'{place!r} is no address that can be read: {" ".join(str(e).split())}') from e


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
    raise UserError(f'Cannot read {place}: {" ".join(str(e).split())[:300]}') from None
  return None if got.state == 'missing' else got.value


def _msgpack(base: Spec, content: bytes, place: str, prefix: str) -> Checkpoint:
  from flax import serialization, traverse_util

  try:
    tree = serialization.msgpack_restore(content)
  except Exception as e:  # msgpack raises many kinds for bytes that are something else
    raise UserError(
      f'{place} is damaged or no msgpack file of Flax: {type(e).__name__}: {e}. Copy it again.'
    ) from None
  optimizer = tree.get('optimizer') if isinstance(tree, Mapping) else None
  if not isinstance(optimizer, Mapping) or not isinstance(optimizer.get('target'), Mapping):
    got = sorted(tree) if isinstance(tree, Mapping) else type(tree).__name__
    raise UserError(f'{place} holds {got}; expected T5X\'s {{"optimizer": {{"target": ...}}}}.')
  inside: Leaves = {}
  outside: dict[str, Spec] = {}
  stop = lambda path, value: 'driver' in value and 'kvstore' in value
  for path, value in traverse_util.flatten_dict(optimizer, sep='/', is_leaf=stop).items():
    if not path.startswith(prefix) or value is None:
      continue
    if isinstance(value, Mapping):
      outside[path] = {'driver': value['driver'], 'kvstore': _below(base, _folder(value, place))}
    else:
      inside[path] = of_array(np.asarray(value), f'{place}: {path}')
  form = 'msgpack and zarr' if outside else 'one msgpack file'
  return Checkpoint(form, place, inside | zarr_leaf.open_all(outside, place))


def _folder(spec: Mapping[str, Any], place: str) -> str:
  """Where a specification of T5X has its zarr folder, below the checkpoint's.

  The driver is where it was written (gfile, gcs with a placeholder for the bucket) and says nothing
  about where it is now. Old files have the path beside the kvstore.
  """
  path = str(spec['kvstore'].get('path') or spec.get('path') or '').strip('/')
  if not path or '..' in path.split('/'):
    raise UserError(f'{place} names no folder of an array: {dict(spec)}')
  return f'{path}/'


def _orbax(base: Spec, metadata: bytes, place: str, prefix: str) -> Checkpoint:
  try:
    about = json.loads(metadata)
    entries = about['tree_metadata'].values()
    paths = {
      '/'.join(str(k['key']) for k in entry['key_metadata']): entry['value_metadata']
      for entry in entries
    }
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    raise UserError(f"{place}: {METADATA} is not one of Orbax's ({e!r}). Copy it again.") from None
  specs = {}
  for path, value in paths.items():
    if not path.startswith(prefix) or value.get('value_type') == 'None':
      continue
    folder = path.replace('/', '.') + '/'
    kvstore = _below(base, folder)
    if about.get('use_ocdbt', True):
      kvstore = {'driver': 'ocdbt', 'base': base, 'path': folder}
    specs[path] = {'driver': 'zarr3' if about.get('use_zarr3') else 'zarr', 'kvstore': kvstore}
  return Checkpoint('Orbax', place, zarr_leaf.open_all(specs, place))
