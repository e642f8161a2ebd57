"""A model, a vocabulary and a batch small enough that every test can afford them."""

import string
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prompt_jax.batch import Batch
from prompt_jax.checkpoints.leaf import expected_shapes
from prompt_jax.models.t5.config import T5Config


def config(dtype: str = 'float32') -> T5Config:
  """T5 1.1 with 2 + 2 layers, width 32, and keys narrower (N * D = 24) than the model."""
  return T5Config(
    vocab_size=64,
    emb_dim=32,
    num_heads=3,
    head_dim=8,
    num_encoder_layers=2,
    num_decoder_layers=2,
    mlp_dim=48,
    dtype=dtype,
  )


def random_params(cfg: T5Config, seed: int = 0) -> dict[str, Any]:
  """A backbone's tree of normal float32 values, drawn without the model."""
  rng = np.random.default_rng(seed)
  flat = {p: rng.normal(size=s).astype(np.float32) for p, s in expected_shapes(cfg).items()}
  return traverse_util.unflatten_dict(flat, sep='/')


class Vocabulary:
  """One id for each lower-case letter, digit and space; other characters are unknown.

  Ids 3 to 39 are characters and 40 to 49 sentinels; an embedding table of 64 rows has padding.
  """

  pad_id = 0
  eos_id = 1
  unk_id = 2
  extra_ids = 10
  characters = string.ascii_lowercase + string.digits + ' '
  size = 3 + len(characters) + extra_ids
  sentinels = tuple(range(size - 1, size - 1 - extra_ids, -1))
  sha256 = 'tiny'

  def encode(self, text: str) -> list[int]:
    """The ids of `text`, without an end of sequence."""
    return [3 + i if i >= 0 else self.unk_id for i in map(self.characters.find, text)]

  def decode(self, ids: Iterable[int]) -> str:
    """The text of `ids` up to the end of the sequence; what is no character is left out."""
    text = ''
    for i in ids:
      if i == self.eos_id:
        break
      text += self.characters[i - 3] if 3 <= i < 3 + len(self.characters) else ''
    return text

  def pieces(self, token_id: int) -> str:
    """The character of an id, or the id in angle brackets."""
    return self.decode([token_id]) or f'<{token_id}>'


def batch(
  rows: int = 3, inputs: int = 9, targets: int = 4, *, pad: int = 0, seed: int = 0
) -> Batch:
  """Random rows of different lengths, each ending with EOS.

  Args:
    rows: B.
    inputs: T before `pad`; the first row is as long as that, later ones shorter.
    targets: U.
    pad: further padding columns of the input; the tokens stay the same.
    seed: of the tokens.
  """
  rng = np.random.default_rng(seed)
  tokens = rng.integers(3, 40, (rows, inputs)).astype(np.int32)
  for row in range(rows):
    length = max(inputs - 2 * row, 2)
    tokens[row, length - 1] = Vocabulary.eos_id
    tokens[row, length:] = Vocabulary.pad_id
  wanted = rng.integers(3, 40, (rows, targets)).astype(np.int32)
  wanted[:, -1] = Vocabulary.eos_id
  return Batch(
    encoder_input_tokens=jnp.pad(tokens, ((0, 0), (0, pad))),
    decoder_input_tokens=jnp.pad(wanted[:, :-1], ((0, 0), (1, 0))),
    decoder_target_tokens=jnp.asarray(wanted),
    decoder_loss_weights=jnp.ones(wanted.shape, jnp.float32),
  )
