"""T5X's parameters to our tree and back. Pure functions on names and leaves.

T5X names `encoder/layers_0/attention/query/kernel`; ours are the same with the layers of a stack
along a first axis. Its `scalable_t5` (umT5) has them along the second axis, and heads apart.
"""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np

from prompt_jax.checkpoints.leaf import Leaf, Leaves, compare, expected_shapes
from prompt_jax.checkpoints.tree import stack_leaves
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config

_SCANNED = re.compile(r'(encoder|decoder)/\1/(.*)')
_ATTENTION = re.compile(r'.*attention/(query|key|value|out)/kernel')
_TABLE = 'token_embedder/embedding'
# Modules that only a prompt has: in google-research/prompt-tuning, and in the trainer inside T5X.
_PROMPTS = {'prompt', 'prompt_constants'}
_QUERY = 'encoder/layers/attention/query/kernel'


def is_prompt(name: str) -> bool:
  """Whether "encoder/prompt/prompt/prompt" or another name in T5X's tree is a prompt's."""
  return not _PROMPTS.isdisjoint(name.split('/')[:-1])


def from_t5x(target: Leaves, where: str, config: T5Config | None = None) -> tuple[T5Config, Leaves]:
  """Our architecture and leaves from T5X's (`token_embedder`, `encoder`, `decoder`).

  T5X keeps the architecture in gin files. Everything but two things follows from shapes: two input
  matrices of the MLP are taken to be T5 1.1's gated GELU (one: ReLU), and the distance at which
  the last bucket of relative positions begins to be 128. No `logits_dense` means tied logits.

  Args:
    target: T5X's parameters by path, one leaf a layer or scanned.
    where: the checkpoint, for messages.
    config: the architecture, where the shapes do not tell enough.

  Raises:
    UserError: a prompt is in it, or names or shapes are not those of the architecture; both trees
      are listed.
  """
  _refuse_prompts(target, where)
  ours = stack_leaves({_path(name): _leaf(name, leaf) for name, leaf in target.items()}, where)
  cfg = config or infer(ours, where)
  compare(expected_shapes(cfg), {p: leaf.shape for p, leaf in ours.items()}, f'{where}: the arrays')
  return cfg, ours


def _refuse_prompts(target: Leaves, where: str) -> None:
  """A checkpoint that was trained with a prompt is not the model alone, and never taken as such."""
  names = sorted(name for name in target if is_prompt(name))
  if names:
    raise UserError(
      f'{where} holds a prompt beside the model: {names[0]} {list(target[names[0]].shape)}'
      f'{f" and {len(names) - 1} more" if len(names) > 1 else ""}. Take the prompt out of it with '
      f'`prompt-jax import {where} PROMPT.safetensors --model BACKBONE`, BACKBONE being the '
      'checkpoint that it was tuned on, and give that as the model.'
    )


def infer(ours: Leaves, where: str) -> T5Config:
  """The architecture that shapes tell, see `from_t5x`; a T5's matrices must be there."""
  per_layer = 'encoder/layers/relpos_bias/rel_embedding' in ours
  relpos = f'encoder/{"layers/" if per_layer else ""}relpos_bias/rel_embedding'
  gated = 'encoder/layers/mlp/wi_0/kernel' in ours
  inner = f'encoder/layers/mlp/{"wi_0" if gated else "wi"}/kernel'
  ranks = {_TABLE: 2, relpos: 3 if per_layer else 2, _QUERY: 3, inner: 3}
  missing = [p for p, rank in ranks.items() if p not in ours or len(ours[p].shape) != rank]
  if missing:
    raise UserError(
      f"{where}: the tree is not that of T5X's T5: no matrix at {', '.join(missing)}. "
      f'Paths begin: {", ".join(sorted(ours)[:5])}.'
    )
  heads, buckets = ours[relpos].shape[-2:]
  depths = {'encoder': 0, 'decoder': 0}
  for path, leaf in ours.items():
    stack, _, rest = path.partition('/')
    if rest.startswith('layers/'):
      depths[stack] = leaf.shape[0]
  return T5Config(
    vocab_size=ours[_TABLE].shape[0],
    emb_dim=ours[_TABLE].shape[1],
    num_heads=heads,
    head_dim=ours[_QUERY].shape[2] // heads,
    num_encoder_layers=depths['encoder'],
    num_decoder_layers=depths['decoder'],
    mlp_dim=ours[inner].shape[2],
    mlp_activations=('gelu', 'linear') if gated else ('relu',),
    tied_logits='decoder/logits_dense/kernel' not in ours,
    relpos_buckets=buckets,
    relpos_per_layer=per_layer,
  )


def to_t5x(path: str, array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
  """T5X's names and arrays (views), one a layer, of one leaf of ours."""
  stack, layers, rest = path.partition('/layers/')
  if not layers:
    yield path, array
    return
  for i, part in enumerate(array):
    yield f'{stack}/layers_{i}/{rest}', part


def _path(name: str) -> str:
  """Ours for a scanned leaf; any other keeps its name until its layers are stacked."""
  scanned = _SCANNED.fullmatch(name)
  return f'{scanned[1]}/layers/{scanned[2]}' if scanned else name


def _leaf(name: str, leaf: Leaf) -> Leaf:
  """Layers first and heads joined with their dimension, as `out.reshape` and a transpose."""
  scanned, shape = bool(_SCANNED.fullmatch(name)), leaf.shape
  if scanned:
    if len(shape) < 2:
      raise UserError(f'{leaf.where} is {list(shape)}; expected layers along the second axis.')
    shape = (shape[1], shape[0], *shape[2:])
  apart = shape
  heads = _ATTENTION.fullmatch(name)
  if heads and len(shape) == 3 + scanned:
    first = scanned + (heads[1] != 'out')  # the axis of heads; that of D follows
    shape = (*shape[:first], shape[first] * shape[first + 1], *shape[first + 2 :])
  if not scanned and shape == leaf.shape:
    return leaf

  def fill(out: np.ndarray) -> None:
    # copy=False: a copy would be filled in place of `out`.
    view = np.reshape(out, apart, copy=False)
    leaf.fill(np.moveaxis(view, 0, 1) if scanned else view)

  return dataclasses.replace(leaf, shape=shape, fill=fill)
