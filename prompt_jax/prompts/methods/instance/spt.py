"""SPT: rows of a memory bank that the input retrieves, before those of the task."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.prompts.base import PromptMethod, check_least, check_length, masked_mean, own_table
from prompt_jax.prompts.tables import Plain


class SPT(PromptMethod):
  """X' = [s_i M_i; P; X], s = softmax(q(x) . mean(M_j) / sqrt(H)), i = argmax s (SPT, EMNLP
  2023, arXiv:2212.10929).

  q(x) is the mean embedding of the input; the paper retrieves by its instruction alone, which is a
  part of the text here. No code is public: that the factor s_i gives the bank a gradient, as in
  SMoP, and the root of the width are ours. A bank of one prompt is a longer plain one.

  Parameters: tables at `bank` M [prompts, memory, H] and at `encoder` P [length, H].

  Attributes:
    length: rows of the task.
    prompts: of the bank.
    memory: rows of each.
    table: how rows are parametrised; each has a copy.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({'embeds', 'mask'})

  length: int = 10
  prompts: int = 8
  memory: int = 10
  table: nn.Module = dataclasses.field(default_factory=Plain)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_least(self, prompts=1, memory=1)
    width = ctx.input_dims.H
    bank = own_table(self, self.table, 'bank')((self.prompts, self.memory, width))
    own = own_table(self, self.table, ctx.input_stack)((self.length, width))
    assert ctx.embeds is not None  # declared, and so is the mask
    assert ctx.mask is not None
    query = masked_mean(ctx.embeds, ctx.mask).astype(jnp.float32)
    shares = nn.softmax(query @ jnp.mean(bank, 1).T * width**-0.5)
    best = jnp.argmax(shares, -1)
    factor = jnp.take_along_axis(shares, best[:, None], 1)
    found = factor[..., None] * bank[best]
    own = jnp.broadcast_to(own, (found.shape[0], *own.shape))
    prefix = jnp.concatenate([found, own], axis=1)
    return Injections.of({ctx.input_stack: Injection(prefix)})
