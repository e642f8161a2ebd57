"""Prompt tuning: trained rows among the token embeddings."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax

from prompt_jax.errors import UserError
from prompt_jax.injections import (
  CAUSAL_PLACEMENTS,
  PLACEMENTS,
  SEEN_BY,
  Context,
  Dims,
  Injection,
  Injections,
  Placement,
  SeenBy,
)
from prompt_jax.prompts.base import PromptMethod, check_choices, check_length, own_table
from prompt_jax.prompts.tables import Plain

Array = jax.Array


class InputPrompt(PromptMethod):
  """X' = [P; X] (Lester et al. 2021, arXiv:2104.08691, section 2), or P elsewhere in X.

  Parameters: a table at `encoder` and at `decoder`, where each is on.

  Attributes:
    length: P, rows of the prompt.
    table: how the rows are parametrised; each stack gets its own copy.
    placement: where the rows go in the encoder's input.
    sees_input: whether the encoder's prompt rows attend to the input. If not, their states are the
      same for every input.
    seen_by: who in the encoder attends to these rows, "all", "prompt" or "none"; the decoder does
      in any case. With "none" they only read (read-only prompts, Lee et al. 2023,
      arXiv:2308.14960).
    encoder: whether the stack that reads the input gets a prompt: in a T5 the encoder.
    decoder: whether the decoder gets one, where it is another stack.
    decoder_placement: where the rows go in the decoder's input: before or after its start token.
  """

  length: int = 100
  table: nn.Module = dataclasses.field(default_factory=Plain)
  placement: Placement = 'before'
  sees_input: bool = True
  seen_by: SeenBy = 'all'
  encoder: bool = True
  decoder: bool = False
  decoder_placement: Literal['before', 'after_bos'] = 'before'

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    self._check()
    parts = {}
    if self.encoder:
      rows = self._rows(ctx.input_stack, ctx.input_dims)
      parts[ctx.input_stack] = Injection(
        prefix=rows,
        placement=self.placement,
        sees_input=self.sees_input,
        seen_by=self.seen_by,
      )
    if self.decoder and 'decoder' not in parts:
      rows = self._rows('decoder', ctx.stacks['decoder'])
      parts['decoder'] = Injection(prefix=rows, placement=self.decoder_placement)
    return Injections.of(parts)

  def rows_parameter(self) -> tuple[str, ...] | None:
    return ('encoder', 'prompt') if self.encoder and type(self.table) is Plain else None

  def _rows(self, name: str, dims: Dims) -> Array:
    return own_table(self, self.table, name)((self.length, dims.H))[None]

  def _check(self) -> None:
    if not (self.encoder or self.decoder):
      raise UserError('InputPrompt is off in both stacks; turn on encoder, decoder or both.')
    check_length(self)
    check_choices(self, placement=PLACEMENTS, decoder_placement=CAUSAL_PLACEMENTS, seen_by=SEEN_BY)
