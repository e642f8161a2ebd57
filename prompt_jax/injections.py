"""The contract between prompt methods and frozen models: what may be added, and where.

A prompt method returns one `Injections`; the model has a few injection points and knows no
method. Letters: B batch, T input tokens, P prompt rows, S = P + T, H model width, L layers,
N heads, D head width, G examples packed in a row.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import core, struct

from prompt_jax.errors import UserError

Array = jax.Array
Placement = Literal['before', 'after_bos', 'before_eos', 'after_eos']
PLACEMENTS: tuple[Placement, ...] = ('before', 'after_bos', 'before_eos', 'after_eos')
# Position of the first prompt row where it is the same for all examples. A causal stack knows no
# other placement: where a text ends is not known while it is written.
FIRST = {'before': 0, 'after_bos': 1}
CAUSAL_PLACEMENTS = tuple(FIRST)
SeenBy = Literal['all', 'prompt', 'none']
SEEN_BY: tuple[SeenBy, ...] = ('all', 'prompt', 'none')
# Where a layer can be edited, see `InsideEdit`.
POINTS = ('query', 'key', 'value', 'heads', 'attention', 'mlp_hidden', 'mlp')
# Folded into the key of a step for its method; far from the numbers of microbatches.
_PROMPT_STREAM = 0x70726F6D
# What a method may read of the input, see `Context`; every other name is a feature of an example.
READS = ('tokens', 'embeds', 'mask', 'pooled', 'hidden')
# The feature that says which task an example belongs to.
TASK = 'task_id'


class Dims(NamedTuple):
  """The sizes of one stack that a method may need."""

  L: int  # layers
  H: int  # model width
  N: int  # attention heads
  D: int  # width of one head
  kv_heads: int  # heads of keys and values: N, or fewer that several query heads share
  F: int  # width of the mlp


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
    pooled: [B, H] mean of `hidden` over the tokens of an example.
    hidden: [B, T, H] states of the frozen input stack without a prompt: one more pass through it.
    features: name -> int32[B], or int32[B, G] of each example of a packed row, see `batch.Batch`.
    stacks: sizes of each stack, see `Sizes` (static).
    input_stack: name of the stack that reads the input; methods place there what reads it (static).
    train: whether the method trains (static); only then may it draw, by `make_rng('prompt')`.
  """

  tokens: Array | None = None
  embeds: Array | None = None
  mask: Array | None = None
  pooled: Array | None = None
  hidden: Array | None = None
  features: Mapping[str, Array] = struct.field(default_factory=dict)
  stacks: core.FrozenDict[str, Dims] = struct.field(
    pytree_node=False, default_factory=core.FrozenDict
  )
  input_stack: str = struct.field(pytree_node=False, default='encoder')
  train: bool = struct.field(pytree_node=False, default=False)

  @property
  def input_dims(self) -> Dims:
    """Sizes of the stack that reads the input."""
    return self.stacks[self.input_stack]

  @property
  def task_id(self) -> Array | None:
    """The feature "task_id", which task an example belongs to; None where it is not declared."""
    return self.features.get(TASK)


def features_of(method: Method | None) -> frozenset[str]:
  """The features of an example that a method reads."""
  return frozenset() if method is None else method.depends_on - set(READS)


def first_tokens(method: Method | None, tokens: Array) -> dict[str, Array]:
  """Stand-ins for the features that a method reads, where only shapes matter."""
  return dict.fromkeys(sorted(features_of(method)), tokens[:, 0])


def context_for(
  method: Method,
  sizes: Sizes,
  inputs: Mapping[str, Array | None],
  features: Mapping[str, Array],
  train: bool = False,
) -> Context:
  """The context with those of `inputs` and `features` that the method declares.

  Args:
    method: the method.
    sizes: of the model.
    inputs: by the names of `READS`; at least what the method declares.
    features: see `Context`; at least what the method declares.
    train: see `Context`.

  Raises:
    UserError: the method declares something that neither a model nor these examples have.
  """
  names = features_of(method)
  if missing := names - features.keys():
    raise lacking(type(method).__name__, missing)
  seen = {name: inputs[name] for name in method.depends_on - names}
  known = {name: features[name] for name in sorted(names)}
  parts = {'stacks': sizes.stacks, 'input_stack': sizes.input_stack, 'train': train}
  return Context(**seen, features=known, **parts)  # type: ignore[arg-type]


def lacking(kind: str, missing: Collection[str]) -> UserError:
  """That a method of a class reads features which the inputs do not have."""
  if TASK in missing:
    return UserError(
      f'A {kind} holds a prompt for each of several tasks, and nothing says which of them an input '
      'belongs to. Take the prompt of one task by itself: training has put each into the folder '
      'task_prompts beside this file.'
    )
  names = ' and '.join(map(repr, sorted(missing)))
  return UserError(
    f'{kind} reads {names} of each example, and these inputs are texts alone. Give a file with a '
    f'column of each of these names. (A model itself gives {", ".join(READS)}.)'
  )


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
  calls, and a decoder that writes step by step has one token. In an encoder, beside a prefix that
  sees the input, all positions come in one call and `fn` may make rows of all tokens of an example,
  which `layout.mask` and `layout.segments` tell.

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
class InsideEdit:
  """`y = fn(theta[l], y, x)` at a point inside layer l.

  Leaves of `theta` are [L, ...]; `fn` is pure. y is what the frozen layer computes there, x what it
  computes it from. `fn` changes each position by itself, prompt rows as tokens:

  | point | y | x |
  | --- | --- | --- |
  | query, key, value | [B, S, N D], [B, S, kv_heads D] | [B, S, H] normed (of cross keys: states) |
  | heads | [B, S, N D], what the heads read | [B, S, H] as of the query |
  | attention | [B, S, H] | [B, S, N D] as edited at "heads" |
  | mlp_hidden | [B, S, F], after the activation | [B, S, H] normed |
  | mlp | [B, S, H] | [B, S, H] normed |

  Attributes:
    theta: see above.
    point: one of `POINTS` (static); cross attention has the first five.
    fn: see above (static).
  """

  theta: Any
  point: str = struct.field(pytree_node=False)
  fn: Callable[[Any, Array, Array], Array] = struct.field(pytree_node=False)


Inside = tuple[InsideEdit, ...]


@struct.dataclass
class Head:
  """`logits = fn(theta, states, logits)` behind the decoder, each position by itself.

  States [B, U, H] are those that the logits float32[B, U, V] are made of. `fn` is pure, and static.
  """

  theta: Any
  fn: Callable[[Any, Array, Array], Array] = struct.field(pytree_node=False)


@struct.dataclass
class Injection:
  """What is added to one stack; every field is optional.

  Attributes:
    prefix: [B|1, P, H] rows put among the token embeddings, where `placement` says; [B, G, P, H]
      of each example of a packed row, where they differ.
    delta: [B|1, T, H] added to the token embeddings.
    kv: [L, 2, B|1, P, kv_heads, D] extra keys and values in front of each layer's own.
    hidden: an edit of the residual stream before each layer.
    inside: edits of the projections, attention and mlp of each layer.
    head: a change of the logits. Of the decoder alone.
    placement: where `prefix` rows go (static). "before_eos" is what google-research/prompt-tuning
      calls a suffix prompt.
    first_layer: the first layer, from 0, in which tokens see `prefix` and `kv` (static). Rows pass
      through the layers below unseen; an edit `hidden` says with what they enter it. Of the stack
      that reads the input.
    sees_input: whether `prefix` rows attend to the input tokens (static). If not, their states
      do not depend on the input. A decoder beside an encoder refuses False.
    seen_by: who in the encoder attends to `prefix` rows (static): "all"; "prompt", these rows
      alone; "none", not even a row itself. The decoder reads them in any case. The states of the
      tokens are then those of the model without a prompt, as far as no placement parts them.
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
  inside: Inside = ()
  head: Head | None = None
  placement: Placement = struct.field(pytree_node=False, default='before')
  first_layer: int = struct.field(pytree_node=False, default=0)
  sees_input: bool = struct.field(pytree_node=False, default=True)
  seen_by: SeenBy = struct.field(pytree_node=False, default='all')
  kv_bias: Literal['zero', 'shifted'] = struct.field(pytree_node=False, default='zero')
  lengths: Array | None = None
  kv_lengths: Array | None = None


class Seen(NamedTuple):
  """What a loss term sees of a pass through the model.

  Attributes:
    logits: float32[B, U, V] of the target positions; in packed rows of all.
    states: [B, U, H] the states of the decoder that the logits are made of.
  """

  logits: Array
  states: Array


@struct.dataclass
class Term:
  """A part of the training loss: `fn(seen, others) -> float32[B, U]`, of each target token.

  The tokens are weighted as their cross entropy is, so that microbatches and packed rows change
  nothing. A method gives terms only where `ctx.train`; elsewhere nothing of them is computed.

  Attributes:
    fn: of the `Seen` of the pass that trains, and of the other passes by their names (static).
    passes: what is added to the model in further passes of the same batch, such as those of a
      teacher. No dropout, and no gradient.
  """

  fn: Callable[[Seen, Mapping[str, Seen]], Array] = struct.field(pytree_node=False)
  passes: Mapping[str, 'Injections'] = struct.field(default_factory=dict)


@struct.dataclass
class Injections:
  """What a prompt method adds to the stacks of a model; those that a model lacks stay empty.

  Attributes:
    encoder: added to the encoder and its self attention.
    decoder: added to the decoder and its self attention.
    cross: extra keys and values (`kv`) of the decoder's cross attention, and edits `inside` it.
    aux_loss: float32[] added to the training loss.
    terms: more of the training loss, of what the model makes of the batch.
  """

  encoder: Injection = struct.field(default_factory=Injection)
  decoder: Injection = struct.field(default_factory=Injection)
  cross: Injection = struct.field(default_factory=Injection)
  aux_loss: Array | float = 0.0
  terms: tuple[Term, ...] = ()

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


def keys_by_example(injections: Injections) -> bool:
  """Whether the keys and values of two examples differ; a packed row has but one set of them."""
  parts = (injections.encoder, injections.decoder, injections.cross)
  return any(part.kv is not None and part.kv.shape[2] != 1 for part in parts)


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
  if injection.seen_by != 'all':
    return False
  if injection.kv is None:
    return True
  # Keys in front of the input are the farther from the rows the later the rows come.
  moves = injection.kv_bias == 'shifted' and injection.placement not in FIRST
  return injection.kv.shape[2] == 1 and not moves


def prefix_layout(injection: Injection) -> Layout:
  """The layout of an input-independent prefix, a batch of one.

  The distances between its rows are the same wherever they are, and those to anything else are
  asked for only where `placement` is the same for all examples.
  """
  slot = jnp.arange(prefix_length(injection), dtype=jnp.int32)[None]
  first = FIRST.get(injection.placement, 0)
  return Layout(mask=slot >= 0, slot=slot, positions=first + slot)
