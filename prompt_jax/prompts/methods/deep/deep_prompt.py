"""Deep prompts: rows of their own before every layer."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import (
  PLACEMENTS,
  Context,
  Dims,
  Injection,
  Injections,
  LayerEdit,
  Layout,
  Placement,
)
from prompt_jax.prompts.base import PromptMethod, check_choices, check_length, own_table
from prompt_jax.prompts.tables import Plain

Array = jax.Array
MODES = ('replace', 'add')


class DeepPrompt(PromptMethod):
  """x_l[prompt rows] = P_l, or += P_l, before every layer l.

  The idea of P-tuning v2 (Liu et al. 2022, arXiv:2110.07602); "replace" and "add" are those of
  google-research/prompt-tuning's per-layer prompts, P_l a row of the residual stream that the
  frozen layer projects to keys and values. For keys and values themselves, take `PrefixTuning`.

  Parameters: a table [L, P, H] at `encoder` and at `decoder`, where each is on.

  Attributes:
    length: P, rows in each layer.
    table: how the rows are parametrised; each stack gets its own copy.
    placement: where the rows go in the encoder's input.
    sees_input: whether the encoder's prompt rows attend to the input.
    mode: "replace" makes every layer start from its own rows; "add" adds them to what the layer
      before made of the earlier rows.
    encoder: whether the stack that reads the input gets a prompt: in a T5 the encoder.
    decoder: whether the decoder gets one, before its start token, where it is another stack.
  """

  length: int = 20
  table: nn.Module = dataclasses.field(default_factory=Plain)
  placement: Placement = 'before'
  sees_input: bool = True
  mode: Literal['replace', 'add'] = 'replace'
  encoder: bool = True
  decoder: bool = False

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    self._check()
    parts = {}
    if self.encoder:
      parts[ctx.input_stack] = self._injection(
        ctx.input_stack, ctx.input_dims, self.placement, self.sees_input
      )
    if self.decoder and 'decoder' not in parts:
      parts['decoder'] = self._injection('decoder', ctx.stacks['decoder'], 'before', True)
    return Injections.of(parts)

  def _injection(self, name: str, dims: Dims, placement: Placement, sees_input: bool) -> Injection:
    rows = own_table(self, self.table, name)((dims.L, self.length, dims.H))
    # The first layer's rows enter as a prefix, which is what reserves their places.
    later = rows.at[0].set(0) if self.mode == 'add' else rows
    fn = add_rows if self.mode == 'add' else replace_rows
    edit = LayerEdit(theta=later, fn=fn, by_slot=True)
    return Injection(prefix=rows[:1], hidden=edit, placement=placement, sees_input=sees_input)

  def _check(self) -> None:
    if not (self.encoder or self.decoder):
      raise UserError('DeepPrompt is off in both stacks; turn on encoder, decoder or both.')
    check_length(self)
    check_choices(self, mode=MODES, placement=PLACEMENTS)


def replace_rows(rows: Array, x: Array, layout: Layout) -> Array:
  """x [B, S, H] with row p of `rows` [P, H] wherever `layout.slot` says p."""
  if layout.slot is None:
    return x
  return jnp.where((layout.slot >= 0)[..., None], _at_slots(rows, x, layout.slot), x)


def add_rows(rows: Array, x: Array, layout: Layout) -> Array:
  """x [B, S, H] plus row p of `rows` [P, H] wherever `layout.slot` says p."""
  if layout.slot is None:
    return x
  return x + jnp.where((layout.slot >= 0)[..., None], _at_slots(rows, x, layout.slot), 0)


def _at_slots(rows: Array, x: Array, slot: Array) -> Array:
  """[B|1, S, H] the prompt row of each position; anything where there is none."""
  return jnp.take(rows, jnp.maximum(slot, 0), axis=0).astype(x.dtype)
