"""Checkpoints written by T5X: the form with every array inside one msgpack file.

T5X's other forms (msgpack beside zarr folders, Orbax) are told apart and refused by name.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import serialization, traverse_util

from prompt_jax.checkpoints.check import check_params
from prompt_jax.checkpoints.tree import Tree, stack_layers
from prompt_jax.errors import UserError
from prompt_jax.models.config import T5Config


def load_t5x_file(path: str | pathlib.Path) -> tuple[T5Config, Tree]:
  """Architecture and parameters from a one-file T5X checkpoint.

  Args:
    path: a msgpack file `{"optimizer": {"target": parameters, ...}, ...}`.

  Returns:
    As `from_t5x`.

  Raises:
    UserError: no such file, another form, or a tree that is not a T5's.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    raise UserError(f'{path} is a folder; expected a T5X checkpoint in one msgpack file.')
  try:
    tree = serialization.msgpack_restore(path.read_bytes())
  except OSError as e:
    raise UserError(f'Cannot read the checkpoint {path}: {e.strerror}.') from None
  except Exception as e:  # msgpack raises many kinds for bytes that are something else
    raise UserError(f'{path} is not a msgpack file of Flax: {type(e).__name__}: {e}') from None
  optimizer = tree.get('optimizer') if isinstance(tree, Mapping) else None
  if not isinstance(optimizer, Mapping) or not isinstance(optimizer.get('target'), Mapping):
    got = sorted(tree) if isinstance(tree, Mapping) else type(tree).__name__
    raise UserError(f'{path} holds {got}; expected T5X\'s {{"optimizer": {{"target": ...}}}}.')
  target = optimizer['target']
  elsewhere = _elsewhere(target)
  if elsewhere:
    raise UserError(
      f'{path} keeps {len(elsewhere)} arrays in zarr folders beside it, such as {elsewhere[0]}; '
      'only T5X checkpoints with every array in the one file can be read.'
    )
  return from_t5x(target)


def _elsewhere(target: Mapping[str, Any]) -> list[str]:
  """Paths of leaves that are tensorstore specs (dicts with a driver) and not arrays."""
  flat = traverse_util.flatten_dict(target, sep='/')
  specs = (path.removesuffix('/driver') for path in flat if path.endswith('/driver'))
  return sorted(path for path in specs if not path.endswith('/kvstore'))


def from_t5x(target: Mapping[str, Any]) -> tuple[T5Config, Tree]:
  """Our architecture and parameters from T5X's tree (`token_embedder`, `encoder`, `decoder`).

  T5X keeps the architecture in gin files. Everything but two numbers follows from shapes: two
  input matrices of the MLP mean T5 1.1's gated GELU, no `logits_dense` tied logits; the distance
  at which the last bucket of relative positions begins is taken to be 128.

  Args:
    target: T5X's parameters, one tree a layer.

  Returns:
    The configuration and the tree of `models.t5.T5`.

  Raises:
    UserError: names or shapes that are not a T5's, each listed.
  """
  flat = traverse_util.flatten_dict(target, sep='/')
  per_layer = 'encoder/layers_0/relpos_bias/rel_embedding' in flat
  relpos = f'encoder/{"layers_0/" if per_layer else ""}relpos_bias/rel_embedding'
  gated = 'encoder/layers_0/mlp/wi_0/kernel' in flat
  inner = f'encoder/layers_0/mlp/{"wi_0" if gated else "wi"}/kernel'
  table, query = 'token_embedder/embedding', 'encoder/layers_0/attention/query/kernel'
  missing = [path for path in (table, relpos, query, inner) if np.ndim(flat.get(path)) != 2]
  if missing:
    raise UserError(
      f"The tree is not that of T5X's T5: no matrix at {', '.join(missing)}. "
      f'Paths begin: {", ".join(sorted(flat)[:5])}.'
    )
  heads, buckets = flat[relpos].shape
  cfg = T5Config(
    vocab_size=flat[table].shape[0],
    emb_dim=flat[table].shape[1],
    num_heads=heads,
    head_dim=flat[query].shape[1] // heads,
    num_encoder_layers=_count(target['encoder']),
    num_decoder_layers=_count(target.get('decoder', {})),
    mlp_dim=flat[inner].shape[1],
    mlp_activations=('gelu', 'linear') if gated else ('relu',),
    tied_logits='decoder/logits_dense/kernel' not in flat,
    relpos_buckets=buckets,
    relpos_per_layer=per_layer,
  )
  params = stack_layers(target)
  check_params(cfg, params)
  return cfg, params


def _count(stack: Mapping[str, Any]) -> int:
  return sum(name.startswith('layers_') for name in stack)
