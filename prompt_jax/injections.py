"""The contract between prompt methods and the frozen T5: what may be added, and where.

A prompt method returns one `Injections`; the model has a few injection points and knows no
method. Letters: B batch, T input tokens, P prompt rows, S = P + T, H model width, L layers,
N heads, D head width.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array
Placement = Literal['before', 'after_bos', 'before_eos', 'after_eos']
PLACEMENTS: tuple[Placement, ...] = ('before', 'after_bos', 'before_eos', 'after_eos')
# Where the first prompt row stands if that is the same for all examples.
_FIRST = {'before': 0, 'after_bos': 1}
# Folded into the key of a step for its method; far from the numbers of microbatches.
_PROMPT_STREAM = 0x70726F6D


class Dims(NamedTuple):
  """The sizes of one stack that a method may need."""

  L: int  # layers (of the stack in question; encoder and decoder may differ)
  H: int  # model width
  N: int  # attention heads
  D: int  # width of one head


@struct.dataclass
class Context:
  """Everything a method may look at.

  Attributes:
    tokens: int32[B, T] input ids, 0 is padding.
    embeds: [B, T, H] their frozen embeddings.
    mask: bool[B, T] true where there is a token.
    task_id: int32[B] which prompt a row uses, for methods that hold several; int32[B, G] which each
      example of a packed row uses, see `batch.Batch`.
    pooled: [B, H] mean of the frozen encoder's states; only if the method depends on "pooled".
    encoder: sizes of the encoder (static).
    decoder: sizes of the decoder (static).
    train: whether the method trains (static); only then may it draw, by `make_rng('prompt')`.
  """

  tokens: Array
  embeds: Array
  mask: Array
  task_id: Array | None = None
  pooled: Array | None = None
  encoder: Dims = struct.field(pytree_node=False, default=Dims(0, 0, 0, 0))
  decoder: Dims = struct.field(pytree_node=False, default=Dims(0, 0, 0, 0))
  train: bool = struct.field(pytree_node=False, default=False)


@struct.dataclass
class Layout:
  """What each position of a stack's input is.

  Attributes:
    mask: bool[B, S] true where there is a token or a prompt row.
    slot: int32[B|1, S] the prompt row that stands at this position, -1 for a token; None where
      the stack has no prompt rows.
    segments: int32[B, S] which packed example a position belongs to, 0 is padding; None where
      rows are not packed.
    positions: int32[B|1, S] position within the example; None for 0, 1, 2, ...
    from_prompt: int32[B|1, S] position minus that of the first prompt row, where the prompt rows
      are not among these positions but a stream of their own (see `stands_apart`); else None.
  """

  mask: Array
  slot: Array | None = None
  segments: Array | None = None
  positions: Array | None = None
  from_prompt: Array | None = None


@struct.dataclass
class LayerEdit:
  """`x = fn(theta[l], x, layout)` before layer l. Leaves of `theta` are [L, ...]; `fn` is pure.

  `fn` changes each position by itself: prompt rows that stand apart and tokens come in two calls.
  """

  theta: Any
  fn: Callable[[Any, Array, Layout], Array] = struct.field(pytree_node=False)


@struct.dataclass
class Injection:
  """What is added to one stack; every field is optional.

  Attributes:
    prefix: [B|1, P, H] rows put among the token embeddings, where `placement` says; [B, G, P, H]
      of each example of a packed row, where they differ.
    delta: [B|1, T, H] added to the token embeddings.
    kv: [L, 2, B|1, P, N, D] extra keys and values in front of each layer's own.
    hidden: an edit of the residual stream before each layer.
    placement: where `prefix` rows go (static). "before_eos" is what google-research/prompt-tuning
      calls a suffix prompt.
    sees_input: whether `prefix` rows attend to the input tokens (static). If not, their states
      do not depend on the input. Read in the encoder only.
    kv_bias: the relative-position bias of `kv` keys (static): "zero", or "shifted" as if they
      stood at positions -P..-1 (METHODS 2.9: weights are not interchangeable).
  """

  prefix: Array | None = None
  delta: Array | None = None
  kv: Array | None = None
  hidden: LayerEdit | None = None
  placement: Placement = struct.field(pytree_node=False, default='before')
  sees_input: bool = struct.field(pytree_node=False, default=True)
  kv_bias: Literal['zero', 'shifted'] = struct.field(pytree_node=False, default='zero')


@struct.dataclass
class Injections:
  """What a prompt method adds to an encoder-decoder.

  Attributes:
    encoder: added to the encoder and its self attention.
    decoder: added to the decoder and its self attention.
    cross: only `kv` is read: extra keys and values of the decoder's cross attention.
    aux_loss: float32[] added to the training loss.
  """

  encoder: Injection = struct.field(default_factory=Injection)
  decoder: Injection = struct.field(default_factory=Injection)
  cross: Injection = struct.field(default_factory=Injection)
  aux_loss: Array | float = 0.0


def random_streams(key: Array, dropout: bool) -> dict[str, Array]:
  """What a training step's `apply` draws from: "prompt", and "dropout" of the backbone if it is on.

  Args:
    key: of the step; the backbone draws from it, the method from one of its own.
    dropout: whether the backbone drops out.
  """
  streams = {'prompt': jax.random.fold_in(key, _PROMPT_STREAM)}
  return {**streams, 'dropout': key} if dropout else streams


def prefix_length(injection: Injection) -> int:
  """Number of prompt rows that `attach` puts among the tokens."""
  return 0 if injection.prefix is None else injection.prefix.shape[-2]


def stands_apart(injection: Injection) -> bool:
  """Whether `prefix` is run through the encoder by itself, once for all examples of a batch.

  It is if its rows do not see the input and nothing that they see differs between examples.
  """
  prefix = injection.prefix
  if prefix is None or injection.sees_input or prefix.ndim == 4 or prefix.shape[0] != 1:
    return False
  if injection.kv is None:
    return True
  # Keys that stand before the input are the farther from the rows the later the rows come.
  moves = injection.kv_bias == 'shifted' and injection.placement not in _FIRST
  return injection.kv.shape[2] == 1 and not moves


def prompt_layout(injection: Injection) -> Layout:
  """The layout of `prefix` rows that stand apart, a batch of one.

  Their distances from one another are the same wherever they stand, and those from anything else
  are asked for only where `placement` is the same for all examples.
  """
  slot = jnp.arange(prefix_length(injection), dtype=jnp.int32)[None]
  first = _FIRST.get(injection.placement, 0)
  return Layout(mask=slot >= 0, slot=slot, positions=first + slot)


def attach(
  injection: Injection, x: Array, layout: Layout, prompt_slot: Array | None = None
) -> tuple[Array, Layout]:
  """Adds `delta`, then puts `prefix` rows among the embeddings, or makes room for them beside.

  Args:
    injection: what to add.
    x: [B, T, H] token embeddings. With `prompt_slot`, [B, S, H]: slots are already reserved.
    layout: of x; its `slot` is ignored.
    prompt_slot: int32[B, S] the prompt row for each reserved position, -1 for a token (packed
      rows). None inserts the rows where `injection.placement` says.

  Returns:
    [B, S, H] embeddings and their layout. Rows that stand apart are not among them: S = T, and
    the tokens have the positions that they would have around the rows.
  """
  if injection.delta is not None:
    if layout.segments is not None:
      raise ValueError('Packed rows take no delta: it is of the positions of one example')
    x = x + injection.delta.astype(x.dtype)
  if injection.prefix is None:
    return x, dataclasses.replace(layout, slot=None)
  if prompt_slot is None and stands_apart(injection):
    return x, _around(injection, layout)
  b = x.shape[0]
  rows = jnp.broadcast_to(injection.prefix, (b, *injection.prefix.shape[1:])).astype(x.dtype)
  if prompt_slot is not None:
    own = jnp.maximum(prompt_slot, 0)
    if rows.ndim == 4 and layout.segments is not None:  # those of one example after the other
      own = own + jnp.maximum(layout.segments - 1, 0) * rows.shape[2]
      rows = rows.reshape(b, -1, rows.shape[-1])
    chosen = jnp.take_along_axis(rows, own[..., None], axis=1)
    x = jnp.where((prompt_slot >= 0)[..., None], chosen, x)
    mask = layout.mask | (prompt_slot >= 0)
    return x, dataclasses.replace(layout, slot=prompt_slot, mask=mask)
  if layout.segments is not None:
    raise ValueError('Packed rows need prompt_slot: the prompt cannot be inserted between examples')
  return _insert(rows, x, layout, injection.placement)


def _first_row(placement: Placement, layout: Layout) -> Array:
  """int32[B|1, S|1] position of the first prompt row, for the example at each position."""
  if placement not in PLACEMENTS:
    raise ValueError(f'placement is {placement!r}; known: {", ".join(PLACEMENTS)}')
  if placement in _FIRST:
    return jnp.full((1, 1), _FIRST[placement], jnp.int32)
  if layout.segments is None:
    length = jnp.sum(layout.mask, axis=1, keepdims=True)
  else:
    same = layout.segments[:, :, None] == layout.segments[:, None, :]
    length = jnp.sum(same & layout.mask[:, None, :], axis=2)
  return jnp.maximum(length.astype(jnp.int32) - (placement == 'before_eos'), 0)


def _around(injection: Injection, layout: Layout) -> Layout:
  """The layout of tokens that stand around prompt rows which are not among them."""
  own = layout.positions
  if own is None:
    own = jnp.arange(layout.mask.shape[1], dtype=jnp.int32)[None]
  first = _first_row(injection.placement, layout)
  own = jnp.where(own < first, own, own + prefix_length(injection))
  return dataclasses.replace(layout, slot=None, positions=own, from_prompt=own - first)


def _insert(rows: Array, x: Array, layout: Layout, placement: Placement) -> tuple[Array, Layout]:
  """Inserts `rows` [B, P, H] before position k of each example, k given by `placement`."""
  b, p = rows.shape[:2]
  s = p + x.shape[1]
  joined = jnp.concatenate([rows, x], axis=1)
  slot = jnp.concatenate([jnp.arange(p), jnp.full(x.shape[1], -1)]).astype(jnp.int32)[None]
  mask = jnp.concatenate([jnp.ones((b, p), bool), layout.mask], axis=1)
  if placement == 'before':
    return joined, Layout(mask=mask, slot=slot)
  k = jnp.broadcast_to(_first_row(placement, layout), (b, 1))
  j = jnp.arange(s, dtype=jnp.int32)[None]
  # Position j of the result is token j (before k), prompt row j - k, or token j - P (after).
  source = jnp.where(j < k, p + j, jnp.where(j < k + p, j - k, j))
  return (
    jnp.take_along_axis(joined, source[..., None], axis=1),
    Layout(
      mask=jnp.take_along_axis(mask, source, axis=1),
      slot=jnp.take_along_axis(jnp.broadcast_to(slot, (b, s)), source, axis=1),
    ),
  )
