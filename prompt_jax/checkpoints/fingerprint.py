"""A short name for a backbone's weights, so that a prompt never meets another model unnoticed."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util

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
