"""The parameters in a checkpoint of T5X, read one at a time by T5X's and Orbax's own readers."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp
import tensorflow as tf
from flax import traverse_util
from t5x import checkpoints

from prompt_jax.errors import UserError

# Where T5X puts the train state in a checkpoint that it wrote with Orbax.
ORBAX_STATE = 'state'
EMBEDDING = 'token_embedder/embedding'


class Leaf(NamedTuple):
  """A parameter that is read each time that it is indexed.

  Attributes:
    shape: of the whole.
    read: gives the whole.
  """

  shape: tuple[int, ...]
  read: Callable[[], np.ndarray]

  def __getitem__(self, index: Any) -> np.ndarray:  # type: ignore[override]
    return self.read()[index]


def leaves(path: str) -> dict[str, Leaf]:
  """{"encoder/encoder_norm/scale": Leaf} of a checkpoint folder (`.../checkpoint_1100000`).

  Raises:
    UserError: there is no checkpoint of T5X.
  """
  state = os.path.join(path, ORBAX_STATE)
  if tf.io.gfile.isdir(state):
    return _orbax(state)
  try:
    target = checkpoints.load_t5x_checkpoint(path, lazy_parameters=True)['target']
  except (OSError, ValueError, KeyError, TypeError, tf.errors.OpError) as e:
    raise UserError(f'{path} is no checkpoint of T5X that can be read: {e}') from None
  flat = traverse_util.flatten_dict(target, sep='/')
  return {name: Leaf(tuple(lazy.shape), lazy.get) for name, lazy in flat.items()}


def embedding(path: str) -> np.ndarray:
  """float[V, H] the embedding table of a checkpoint.

  Raises:
    UserError: there is no checkpoint, or none of a T5.
  """
  found = leaves(path)
  if EMBEDDING not in found:
    raise UserError(
      f'{path} has no {EMBEDDING}; its names begin {", ".join(sorted(found)[:5])}. '
      'Give a checkpoint of a T5 with one tree a layer.'
    )
  return np.asarray(found[EMBEDDING].read())


def _orbax(state: str) -> dict[str, Leaf]:
  checkpointer = ocp.PyTreeCheckpointer()
  metadata = checkpointer.metadata(state).item_metadata
  flat = traverse_util.flatten_dict(_tree(metadata)['target'], sep='/')

  def reader(name: str) -> Callable[[], np.ndarray]:
    item = traverse_util.unflatten_dict({('target', *name.split('/')): 0})
    kinds = traverse_util.unflatten_dict(
      {('target', *name.split('/')): ocp.RestoreArgs(restore_type=np.ndarray)}
    )

    def read() -> np.ndarray:
      args = ocp.args.PyTreeRestore(item, restore_args=kinds, partial_restore=True)
      (leaf,) = traverse_util.flatten_dict(checkpointer.restore(state, args=args)).values()
      return leaf

    return read

  return {name: Leaf(tuple(about.shape), reader(name)) for name, about in flat.items()}


def _tree(metadata: Any) -> Mapping[str, Any]:
  tree = getattr(metadata, 'tree', metadata)
  if not isinstance(tree, Mapping) or 'target' not in tree:
    raise UserError('The Orbax checkpoint holds no "target": it was not written by T5X.')
  return tree
