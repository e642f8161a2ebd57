"""Prompts in a random subspace: a few numbers move all rows."""

import dataclasses
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.prompts.initializers import Initializer, SampledVocabulary

Array = jax.Array


class RandomSubspace(nn.Module):
  """vec(P) = vec(P_0) + A z, P_0 and A never train (intrinsic dimension, arXiv:2012.13255).

  z has `size` numbers and starts at 0, those of A are 1 or -1 over sqrt(size): a step of z moves
  each number of P about as far. Black-Box Tuning (arXiv:2201.03514) searches in such a space, of a
  normal A, without gradients.

  A would be 4 size P H bytes, 77 MB for 50 rows of T5 base. It is computed from a seed whenever it
  is needed, in whole numbers, which are the same on every device.

  Parameters: `point` z [size]. Constants: `origin` P_0 [..., P, H], `seed` uint32[].

  Attributes:
    size: dimensions of the subspace; Black-Box Tuning has 500.
    initializer: of P_0.
  """

  size: int = 500
  initializer: Initializer = dataclasses.field(default_factory=SampledVocabulary)

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    whole = math.prod(shape)
    if not 1 <= self.size <= whole:
      raise UserError(
        f'RandomSubspace.size is {self.size}; a table of {whole} numbers needs 1 to {whole}.'
      )
    origin = self.variable(
      'constants', 'origin', lambda: self.initializer(self.make_rng('params'), tuple(shape))
    ).value
    seed = self.variable(
      'constants', 'seed', lambda: jax.random.bits(self.make_rng('params'), (), jnp.uint32)
    ).value
    point = self.param('point', nn.initializers.zeros, (self.size,))
    moved = jnp.sum(signs(seed, whole, self.size) * (point * self.size**-0.5)[None], axis=1)
    return origin + moved.reshape(shape)


def signs(seed: Array, rows: int, columns: int) -> Array:
  """float32[rows, columns] of 1 and -1, the bits of hashed numbers.

  Not `jax.random`: what it draws may change with its version.
  """
  words = -(-columns // 32)
  number = jnp.arange(rows * words, dtype=jnp.uint32).reshape(rows, words, 1)
  place = jnp.arange(32, dtype=jnp.uint32)[None, None]
  bits = _mixed(number ^ _mixed(jnp.asarray(seed, jnp.uint32))) >> place
  bits = (bits & 1).reshape(rows, words * 32)[:, :columns]
  return 2 * bits.astype(jnp.float32) - 1


def _mixed(x: Array) -> Array:
  """uint32 -> uint32, one to one: the last steps of MurmurHash3 (Appleby, public domain)."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
