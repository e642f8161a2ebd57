"""T5X's checkpoints in the forms it wrote, made here: each a function of a folder and a tree.

One msgpack file and msgpack with zarr are as T5X has them since 2021, Orbax is what the installed
Orbax writes. Orbax with a msgpack file is what T5X wrote from May 2023 to July 2024 (small arrays
in the file, no OCDBT database; `_METADATA` from February 2024): Orbax reads it to this day, and
`test_orbax_reads_its_older_form` has it do so.
"""

import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from flax import serialization, traverse_util
from orbax.checkpoint import msgpack_utils
from orbax.checkpoint.utils import leaf_placeholder

from prompt_jax.export import t5x_writer

Tree = Mapping[str, Any]
STEP = 7


def one_file(folder: pathlib.Path, target: Tree) -> None:
  folder.mkdir(parents=True)
  tree = {'version': 3, 'optimizer': {'target': target, 'state': {'step': np.int32(STEP)}}}
  (folder / 'checkpoint').write_bytes(serialization.msgpack_serialize(tree))


def zarr(folder: pathlib.Path, target: Tree) -> None:
  t5x_writer.write(folder, traverse_util.flatten_dict(dict(target), sep='/').items(), STEP)


def orbax(folder: pathlib.Path, target: Tree) -> None:
  state = {'target': target, 'state': {'step': np.int32(STEP)}}
  with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(folder / 'state', state)


def orbax_msgpack(folder: pathlib.Path, target: Tree, metadata: bool = False) -> None:
  """Matrices as zarr folders; what T5X's rules did not cut over devices is in the file."""
  folder = folder / 'state'
  folder.mkdir(parents=True)
  flat: dict[tuple[str, ...], Any] = {('state', 'step'): np.int32(STEP), ('state', 'none'): None}
  flat |= {('target', *path): x for path, x in traverse_util.flatten_dict(dict(target)).items()}
  about = {}
  for path, x in flat.items():
    inside = np.ndim(x) < 2
    key = [{'key': name, 'key_type': 2} for name in path]
    value = {'value_type': 'None' if x is None else 'jax.Array', 'skip_deserialize': inside}
    about[str(path)] = {'key_metadata': key, 'value_metadata': value}
    if not inside:
      t5x_writer.write_array(folder, '.'.join(path), x)
      flat[path] = leaf_placeholder('.'.join(path))
  tree = traverse_util.unflatten_dict(flat)
  (folder / 'checkpoint').write_bytes(msgpack_utils.msgpack_serialize(tree))
  if metadata:
    described = {'tree_metadata': about, 'use_zarr3': False}
    (folder / '_METADATA').write_text(json.dumps(described))


FORMS: dict[str, Callable[[pathlib.Path, Tree], None]] = {
  'one msgpack file': one_file,
  'msgpack and zarr': zarr,
  'Orbax with a msgpack file': orbax_msgpack,
  'Orbax': orbax,
}
