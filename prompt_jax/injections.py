"""The contract between prompt methods and frozen models: what may be added, and where.

A prompt method returns one `Injections`; the model has a few injection points and knows no
method. Letters: B batch, T input tokens, P prompt rows, S = P + T, H model width, L layers,
N heads, D head width, G examples packed in a row.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import core, struct

from prompt_jax.errors import UserError, unknown

Array = jax.Array
Placement = Literal['before', 'after_bos', 'before_eos', 'after_eos']
PLACEMENTS: tuple[Placement, ...] = ('before', 'after_bos', 'before_eos', 'after_eos')
# Position of the first prompt row where it is the same for all examples. A causal stack knows no
# other placement: where a text ends is not known while it is written.
_FIRST = {'before': 0, 'after_bos': 1}
CAUSAL_PLACEMENTS = tuple(_FIRST)
# Folded into the key of a step for its method; far from the numbers of microbatches.
_PROMPT_STREAM = 0x70726F6D
# What a method may read of the input, see `Context`.
READS = ('tokens', 'embeds', 'mask', 'task_id', 'pooled', 'hidden')


class Dims(NamedTuple):
  """The sizes of one stack that a method may need."""

  L: int  # layers
  H: int  # model width
  N: int  # attention heads
  D: int  # width of one head
  kv_heads: int  # heads of keys and values: N, or fewer that several query heads share


class Sizes(NamedTuple):
  """The sizes of a model.

  Attributes:
    stacks: of each stack by its name, "encoder" or "decoder". A model with both has cross
      attention, whose keys and values are as the decoder's own.
    input_stack: the stack that reads the input: "encoder", or "decoder" of a decoder-only model.
  """

  stacks: core.FrozenDict[str, Dims]
  input_stack: str


class Method(Protocol):
  """What a model asks of its prompt method besides the call; see `prompts.base.PromptMethod`."""

  @property
  def depends_on(self) -> frozenset[str]: ...


@struct.dataclass
class Context:
  """Everything that a method may look at.

  What a method does not name in its `depends_on` is None, whether or not the input has it.

  Attributes:
    tokens: int32[B, T] input ids, 0 is padding.
    embeds: [B, T, H] their frozen embeddings.
    mask: bool[B, T] true where there is a token.
    task_id: int32[B] which prompt a row uses, for methods that hold several; int32[B, G] which each
      example of a packed row uses, see `batch.Batch`; None where the input does not say.
    pooled: [B, H] mean of `hidden` over the tokens of an example.
    hidden: [B, T, H] states of the frozen input stack without a prompt: one more pass through it.
    stacks: sizes of each stack, see `Sizes` (static).
    input_stack: name of the stack that reads the input; methods place there what reads it (static).
    train: whether the method trains (static); only then may it draw, by `make_rng('prompt')`.
  """

  tokens: Array | None = None
  embeds: Array | None = None
  mask: Array | None = None
  task_id: Array | None = None
  pooled: Array | None = None
  hidden: Array | None = None
  stacks: core.FrozenDict[str, Dims] = struct.field(
    pytree_node=False, default_factory=core.FrozenDict
  )
  input_stack: str = struct.field(pytree_node=False, default='encoder')
  train: bool = struct.field(pytree_node=False, default=False)

  @property
  def input_dims(self) -> Dims:
    """Sizes of the stack that reads the input."""
    return self.stacks[self.input_stack]


def context_for(
  method: Method, sizes: Sizes, inputs: dict[str, Array | None], train: bool = False
) -> Context:
  """The context with those of `inputs` that the method declares.

  Args:
    method: the method.
    sizes: of the model.
    inputs: by the names of `READS`; at least what the method declares.
    train: see `Context`.

  Raises:
    UserError: the method declares something that no model gives.
  """
  for name in sorted(method.depends_on):
    if name not in READS:
      raise unknown(f'read in {type(method).__name__}.depends_on', name, READS)
  seen = {name: inputs[name] for name in method.depends_on}
  return Context(**seen, stacks=sizes.stacks, input_stack=sizes.input_stack, train=train)


@struct.dataclass
class Layout:
  """What each position of a stack's input is.

  Attributes:
    mask: bool[B, S] true where there is a token or a prompt row.
    slot: int32[B|1, S] the prompt row at this position, -1 for a token; None where the stack has no
      prompt rows.
    segments: int32[B, S] which packed example a position belongs to, 0 is padding; None where
      rows are not packed.
    positions: int32[B|1, S] position within the example; None for 0, 1, 2, ...
    from_prompt: int32[B|1, S] position minus that of the first prompt row, where the prefix is not
      among these positions but a stream of its own (see `is_input_independent`); else None.
  """

  mask: Array
  slot: Array | None = None
  segments: Array | None = None
  positions: Array | None = None
  from_prompt: Array | None = None


@struct.dataclass
class LayerEdit:
  """`x = fn(theta[l], x, layout)` before layer l. Leaves of `theta` are [L, ...]; `fn` is pure.

  `fn` changes each position by itself: an input-independent prefix and the tokens come in two
  calls.

  Attributes:
    theta: see above.
    fn: see above (static).
    by_slot: whether the leaves are [L, P, ...] and `fn` reads row p of them only where
      `layout.slot` says p (static): rows behind the last one then change nothing.
  """

  theta: Any
  fn: Callable[[Any, Array, Layout], Array] = struct.field(pytree_node=False)
  by_slot: bool = struct.field(pytree_node=False, default=False)


@struct.dataclass
class Injection:
  """What is added to one stack; every field is optional.

  Attributes:
    prefix: [B|1, P, H] rows put among the token embeddings, where `placement` says; [B, G, P, H]
      of each example of a packed row, where they differ.
    delta: [B|1, T, H] added to the token embeddings.
    kv: [L, 2, B|1, P, kv_heads, D] extra keys and values in front of each layer's own.
    hidden: an edit of the residual stream before each layer.
    placement: where `prefix` rows go (static). "before_eos" is what google-research/prompt-tuning
      calls a suffix prompt.
    sees_input: whether `prefix` rows attend to the input tokens (static). If not, their states
      do not depend on the input. A causal stack refuses False.
    kv_bias: the relative-position bias of `kv` keys (static): "zero", or "shifted" to positions
      -P..-1. Weights trained with one are useless with the other.
    lengths: int32[B] how many of the P rows of `prefix` an example has; those behind are room that
      nobody sees. None for all of them.
    kv_lengths: int32[B] how many keys and values an example has: the last ones, so that "shifted"
      positions are those next to the input. None for all of them.
  """

  prefix: Array | None = None
  delta: Array | None = None
  kv: Array | None = None
  hidden: LayerEdit | None = None
  placement: Placement = struct.field(pytree_node=False, default='before')
  sees_input: bool = struct.field(pytree_node=False, default=True)
  kv_bias: Literal['zero', 'shifted'] = struct.field(pytree_node=False, default='zero')
  lengths: Array | None = None
  kv_lengths: Array | None = None


@struct.dataclass
class Injections:
  """What a prompt method adds to the stacks of a model; those that a model lacks stay empty.

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

  @classmethod
  def of(cls, parts: Mapping[str, Injection]) -> 'Injections':
    """Injections by the name of their stack: "encoder", "decoder", "cross"."""
    return cls(**parts)  # type: ignore[arg-type]


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


def visible_keys(injection: Injection) -> Array | None:
  """bool[B, P] which keys of `kv` an example has; None for all of them."""
  if injection.kv is None or injection.kv_lengths is None:
    return None
  room = injection.kv.shape[3]
  return jnp.arange(room, dtype=jnp.int32)[None] >= room - injection.kv_lengths[:, None]


def is_input_independent(injection: Injection) -> bool:
  """Whether the states of `prefix` are the same for all examples of a batch.

  They are if its rows do not see the input and nothing that they see differs between examples.
  The encoder then runs the prefix once for the batch, as a stream of its own.
  """
  prefix = injection.prefix
  if prefix is None or injection.sees_input or prefix.ndim == 4 or prefix.shape[0] != 1:
    return False
  if injection.lengths is not None or injection.kv_lengths is not None:
    return False
  if injection.kv is None:
    return True
  # Keys in front of the input are the farther from the rows the later the rows come.
  moves = injection.kv_bias == 'shifted' and injection.placement not in _FIRST
  return injection.kv.shape[2] == 1 and not moves


def prefix_layout(injection: Injection) -> Layout:
  """The layout of an input-independent prefix, a batch of one.

  The distances between its rows are the same wherever they are, and those to anything else are
  asked for only where `placement` is the same for all examples.
  """
  slot = jnp.arange(prefix_length(injection), dtype=jnp.int32)[None]
  first = _FIRST.get(injection.placement, 0)
  return Layout(mask=slot >= 0, slot=slot, positions=first + slot)


def attach(
  injection: Injection,
  x: Array,
  layout: Layout,
  prompt_slot: Array | None = None,
  *,
  causal: bool = False,
) -> tuple[Array, Layout]:
  """Adds `delta`, then puts `prefix` rows among the embeddings, or makes room for them beside.

  Args:
    injection: what to add.
    x: [B, T, H] token embeddings. With `prompt_slot`, [B, S, H]: slots are already reserved.
    layout: of x; its `slot` is ignored.
    prompt_slot: int32[B, S] the prompt row for each reserved position, -1 for a token (packed
      rows). None inserts the rows where `injection.placement` says.
    causal: whether x enters a stack that sees no later position, as a decoder.

  Returns:
    [B, S, H] embeddings and their layout. An input-independent prefix is not among them: S = T, and
    the tokens have the positions that they would have around its rows. Room for rows that an
    example lacks is at its end; in a causal stack at its beginning, so that all end together.

  Raises:
    UserError: a causal stack with a placement or visibility that it does not have.
    ValueError: packed rows with `delta`, or without `prompt_slot`.
  """
  if injection.delta is not None:
    if layout.segments is not None:
      raise ValueError('Packed rows take no delta: it is of the positions of one example')
    x = x + injection.delta.astype(x.dtype)
  if injection.prefix is None:
    return x, dataclasses.replace(layout, slot=None)
  if causal:
    _check_causal(injection)
  elif prompt_slot is None and is_input_independent(injection):
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
  return _insert(rows, x, layout, injection, causal)


def _check_causal(injection: Injection) -> None:
  if injection.placement not in CAUSAL_PLACEMENTS:
    raise UserError(
      f"The placement of a decoder's prompt is {injection.placement!r}; a decoder cannot put rows "
      f'at the end of what it has not written yet. Known: {", ".join(CAUSAL_PLACEMENTS)}.'
    )
  if not injection.sees_input:
    raise UserError(
      "A decoder's prompt has sees_input=False; its rows see what is before them. Give True."
    )


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
  return jnp.maximum(length.astype(jnp.int32) - int(placement == 'before_eos'), 0)


def _around(injection: Injection, layout: Layout) -> Layout:
  """The layout of tokens around prompt rows which are not among them."""
  own = layout.positions
  if own is None:
    own = jnp.arange(layout.mask.shape[1], dtype=jnp.int32)[None]
  first = _first_row(injection.placement, layout)
  own = jnp.where(own < first, own, own + prefix_length(injection))
  return dataclasses.replace(layout, slot=None, positions=own, from_prompt=own - first)


def _insert(
  rows: Array, x: Array, layout: Layout, injection: Injection, causal: bool
) -> tuple[Array, Layout]:
  """Inserts `rows` [B, P, H] before position k of each example, k given by the placement."""
  (b, p), t, lengths = rows.shape[:2], x.shape[1], injection.lengths
  s = p + t
  joined = jnp.concatenate([rows, x], axis=1)
  slot = jnp.concatenate([jnp.arange(p), jnp.full(t, -1)]).astype(jnp.int32)[None]
  mask = jnp.concatenate([jnp.ones((b, p), bool), layout.mask], axis=1)
  if injection.placement == 'before' and lengths is None:
    return joined, Layout(mask=mask, slot=slot)
  k = jnp.broadcast_to(_first_row(injection.placement, layout), (b, 1))
  count = jnp.full((1, 1), p, jnp.int32) if lengths is None else lengths[:, None]
  j = jnp.arange(s, dtype=jnp.int32)[None]
  j = j - (p - count) if causal else j
  # Position j of the result is token j (before k), prompt row j - k, or token j - count (after).
  source = jnp.where(j < k, p + j, jnp.where(j < k + count, j - k, p + j - count))
  there = (j >= 0) & (j < t + count)
  source = jnp.clip(source, 0, s - 1)
  slot = jnp.take_along_axis(jnp.broadcast_to(slot, (b, s)), source, axis=1)
  return (
    jnp.take_along_axis(joined, source[..., None], axis=1),
    Layout(
      mask=there & jnp.take_along_axis(mask, source, axis=1),
      slot=jnp.where(there, slot, -1),
    ),
  )
