"""Late Prompt Tuning: rows that begin in the middle of the encoder."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import (
  PLACEMENTS,
  Context,
  Injection,
  Injections,
  LayerEdit,
  Layout,
  Placement,
)
from prompt_jax.prompts.base import Array, PromptMethod, check_choices, check_length, own_table
from prompt_jax.prompts.methods.deep.deep_prompt import replace_rows
from prompt_jax.prompts.tables import Plain


class LatePrompt(PromptMethod):
  """X_m' = [P; X_m], X_m what the frozen layers below layer m make of the input (Late Prompt
  Tuning, Liu et al. 2022, arXiv:2210.11292, without its generator of P).

  The rows pass through the layers below, where nothing sees them, so a step costs as much as one of
  an input prompt of equal length.

  Parameters: a table at `encoder` [P, H].

  Attributes:
    length: P.
    layer: m, counted from 0; None for the middle.
    table: how the rows are parametrised.
    placement: where the rows go in the encoder's input.
  """

  length: int = 20
  layer: int | None = None
  table: nn.Module = dataclasses.field(default_factory=Plain)
  placement: Placement = 'before'

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_choices(self, placement=PLACEMENTS)
    layers = ctx.input_dims.L
    layer = layers // 2 if self.layer is None else self.layer
    if not 0 <= layer < layers:
      raise UserError(f'LatePrompt.layer is {layer}; the model has layers 0 to {layers - 1}.')
    rows = own_table(self, self.table, ctx.input_stack)((self.length, ctx.input_dims.H))
    begins = jnp.arange(layers) == layer
    theta = {
      'rows': jnp.broadcast_to(rows, (layers, *rows.shape)),
      'begins': jnp.broadcast_to(begins[:, None, None], (layers, self.length, 1)),
    }
    edit = LayerEdit(theta=theta, fn=begin_rows, by_slot=True)
    part = Injection(prefix=rows[None], hidden=edit, placement=self.placement, first_layer=layer)
    return Injections.of({ctx.input_stack: part})


def begin_rows(theta: dict[str, Array], x: Array, layout: Layout) -> Array:
  """x [B, S, H] with the rows [P, H] where `layout.slot` says, in the layer where they begin."""
  begins = theta['begins'].astype(x.dtype)
  marked = replace_rows(begins, jnp.zeros_like(x[..., :1]), layout)
  return jnp.where(marked > 0, replace_rows(theta['rows'], x, layout), x)
