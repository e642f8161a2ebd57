"""Prompt rows among the embeddings of a stack's input, and what each position then is."""

import dataclasses

import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import (
  CAUSAL_PLACEMENTS,
  FIRST,
  PLACEMENTS,
  Injection,
  Layout,
  Placement,
  is_input_independent,
  prefix_length,
)

Array = jax.Array


def attach(
  injection: Injection,
  x: Array,
  layout: Layout,
  prompt_slot: Array | None = None,
  *,
  causal: bool = False,
  apart: bool = True,
) -> tuple[Array, Layout]:
  """Adds `delta`, then puts `prefix` rows among the embeddings, or makes room for them beside.

  Args:
    injection: what to add.
    x: [B, T, H] token embeddings. With `prompt_slot`, [B, S, H]: slots are already reserved.
    layout: of x; its `slot` is ignored.
    prompt_slot: int32[B, S] the prompt row for each reserved position, -1 for a token (packed
      rows). None inserts the rows where `injection.placement` says.
    causal: whether x enters a stack that sees no later position, as a decoder.
    apart: whether an input-independent prefix is left out, for the encoder to run it once.

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
  elif apart and prompt_slot is None and is_input_independent(injection):
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
  if not injection.sees_input or injection.seen_by != 'all':
    raise UserError(
      f"A decoder's prompt has sees_input={injection.sees_input}, seen_by={injection.seen_by!r}; "
      "its rows see what is before them, and what follows sees them. Give True and 'all'."
    )


def _first_row(placement: Placement, layout: Layout) -> Array:
  """int32[B|1, S|1] position of the first prompt row, for the example at each position."""
  if placement not in PLACEMENTS:
    raise ValueError(f'placement is {placement!r}; known: {", ".join(PLACEMENTS)}')
  if placement in FIRST:
    return jnp.full((1, 1), FIRST[placement], jnp.int32)
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
