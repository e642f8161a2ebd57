"""Rows among the input, and rows of their own that labels are compared with."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from prompt_jax.injections import Context, Head, Injection, Injections
from prompt_jax.prompts.base import Array, PromptMethod, check_least, check_length, own_table
from prompt_jax.prompts.initializers import Initializer, LabelPieces
from prompt_jax.prompts.tables import Plain


class LabelRows(PromptMethod):
  """X' = [P; X], and the logit of label token w is h . (E_w + D_w / sqrt(H)), h the decoder's state
  (WARP, Hambardzumyan et al. 2021, arXiv:2101.00121: prompt and label embeddings train, the latter
  from those of words).

  D starts at 0: at first the method is prompt tuning. The other tokens keep their rows E_w, so that
  labels are still written, scored and ranked as text.

  Parameters: a table at `encoder` [P, H]; `head_rows` D [answers, H]. Constant: `head_ids`
  int32[answers] the tokens of D, 0 for a row that none has.

  Attributes:
    length: P; the paper's WARP_20.
    answers: rows of D, at least as many as the labels have different tokens.
    tokens: these tokens; by default those of the task's labels.
    table: how the rows among the input are parametrised.
  """

  length: int = 20
  answers: int = 32
  tokens: Initializer = dataclasses.field(default_factory=LabelPieces)
  table: nn.Module = dataclasses.field(default_factory=Plain)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_least(self, answers=1)
    width = ctx.stacks['decoder'].H
    rows = own_table(self, self.table, ctx.input_stack)((self.length, ctx.input_dims.H))
    made = lambda: self.tokens(self.make_rng('params'), (self.answers,))
    ids = self.variable('constants', 'head_ids', made).value.astype(jnp.int32)
    change = self.param('head_rows', nn.initializers.zeros, (self.answers, width))
    parts = {'decoder': Injection(), ctx.input_stack: Injection(prefix=rows[None])}
    head = Head({'rows': change, 'ids': ids}, of_labels)
    parts['decoder'] = dataclasses.replace(parts['decoder'], head=head)
    return Injections.of(parts)


def of_labels(theta: dict[str, Array], states: Array, logits: Array) -> Array:
  """`Head.fn`: logits [B, U, V] of the tokens `ids` plus states [B, U, H] times their rows."""
  rows, ids = theta['rows'].astype(states.dtype), theta['ids']
  more = jnp.einsum('buh,kh->buk', states, rows, preferred_element_type=jnp.float32)
  more = jnp.where(ids[None, None] > 0, more * rows.shape[1] ** -0.5, 0)
  return logits.at[..., ids].add(more)
