"""Prefix tuning: trained keys and values in front of those of every layer."""

import dataclasses
import math
from typing import Literal

import flax.linen as nn
import jax

from prompt_jax.errors import UserError
from prompt_jax.injections import Context, Dims, Injection, Injections
from prompt_jax.prompts.base import PromptMethod, check_choices, check_length, own_table
from prompt_jax.prompts.tables import Mlp

KV_BIASES = ('zero', 'shifted')


class PrefixTuning(PromptMethod):
  """softmax(q [K_l; K]^T) [V_l; V] in every layer l (Li and Liang 2021, arXiv:2101.00190).

  The keys and values are the rows of a table, kv_heads * D wide, which need not be the model's
  width. With `tables.Mlp` it is the paper's method, (K_l, V_l) = W2 tanh(W1 e); with `tables.Plain`
  and `initializers.Zeros` the keys and values themselves are trained, from 0: every query then at
  first gives the prefix the weight of neutral keys and reads nothing from it.

  Parameters: a table at each of `encoder` and `decoder` (self attention) and `cross` that is on.

  Attributes:
    length: P, keys added to each attention.
    table: how keys and values are parametrised; each attention gets its own copy.
    encoder: whether the self attention of the stack that reads the input gets a prefix.
    decoder: whether the decoder's self attention does, where it is another stack.
    cross: whether cross attention does, where there is any.
    kv_bias: relative-position bias of the added keys: "zero", or "shifted" to positions -P..-1.
      Weights of one are useless with the other. Cross attention has no bias in T5.
  """

  length: int = 20
  table: nn.Module = dataclasses.field(default_factory=Mlp)
  encoder: bool = True
  decoder: bool = True
  cross: bool = True
  kv_bias: Literal['zero', 'shifted'] = 'zero'

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    self._check()
    parts = {}
    if self.encoder:
      parts[ctx.input_stack] = self._injection(ctx, ctx.input_stack, ctx.input_dims)
    if self.decoder and 'decoder' not in parts:
      parts['decoder'] = self._injection(ctx, 'decoder', ctx.stacks['decoder'])
    if self.cross and 'encoder' in ctx.stacks:
      parts['cross'] = self._injection(ctx, 'cross', ctx.stacks['decoder'])
    if not parts:
      raise UserError(
        f'{type(self).__name__} is on in cross attention alone, and this model has none; turn on '
        'encoder, which is the stack that reads the input.'
      )
    return Injections.of(parts)

  def _injection(self, ctx: Context, name: str, dims: Dims) -> Injection:
    return Injection(kv=self._rows(name, dims, self.length), kv_bias=self.kv_bias)

  def _rows(self, name: str, dims: Dims, length: int) -> jax.Array:
    """[L, 2, 1, length, kv_heads, D] keys and values of an attention."""
    heads = (dims.kv_heads, dims.D)
    rows = own_table(self, self.table, name)((dims.L, 2, length, math.prod(heads)))
    return rows.reshape(dims.L, 2, 1, length, *heads)

  def _check(self) -> None:
    if not (self.encoder or self.decoder or self.cross):
      raise UserError('PrefixTuning is off everywhere; turn on encoder, decoder or cross.')
    check_length(self)
    check_choices(self, kv_bias=KV_BIASES)
