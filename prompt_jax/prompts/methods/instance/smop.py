"""SMoP: each input takes one of several short prompts."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.prompts.base import PromptMethod, check_least, check_length, masked_mean, own_table
from prompt_jax.prompts.tables import Plain

Array = jax.Array


class SMoP(PromptMethod):
  """P(x) = s_i P_i, i = argmax s, s = softmax(W mean(x)) (SMoP, EMNLP 2023; its authors' code).

  The factor s_i is what gives the router W a gradient. In training the logits of the router are
  multiplied by 1 + e, e ~ N(0, 1), as released.

  Parameters: a table at `encoder` [prompts, P, H], `router/kernel` W [H, prompts], orthogonal.

  Attributes:
    length: P, rows of each prompt; the authors take 5.
    prompts: how many there are; the authors take 4.
    noise: standard deviation of e.
    balance: weight of the loss that spreads inputs evenly, prompts * sum_i f_i mean(s_i) with f_i
      the share of inputs that take prompt i (Fedus et al. 2022, arXiv:2101.03961, equation 4). The
      authors' code computes one and leaves it out, so it is 0 here.
    table: how the rows are parametrised.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({'embeds', 'mask'})

  length: int = 5
  prompts: int = 4
  noise: float = 1.0
  balance: float = 0.0
  table: nn.Module = dataclasses.field(default_factory=Plain)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_least(self, prompts=1)
    width = ctx.input_dims.H
    rows = own_table(self, self.table, ctx.input_stack)((self.prompts, self.length, width))
    assert ctx.embeds is not None  # declared, and so is the mask
    assert ctx.mask is not None
    x = masked_mean(ctx.embeds, ctx.mask).astype(jnp.float32)
    start = nn.initializers.orthogonal()
    logits = nn.Dense(self.prompts, use_bias=False, kernel_init=start, name='router')(x)
    if ctx.train and self.noise:
      drawn = jax.random.normal(self.make_rng('prompt'), logits.shape)
      logits = logits * (1 + self.noise * drawn)
    shares = nn.softmax(logits)
    chosen = jnp.argmax(shares, -1)
    factor = jnp.take_along_axis(shares, chosen[:, None], 1)
    prefix = factor[..., None] * rows[chosen]
    taken = jnp.mean(jax.nn.one_hot(chosen, self.prompts), 0)
    loss = self.balance * self.prompts * jnp.sum(taken * jnp.mean(shares, 0))
    parts = Injections.of({ctx.input_stack: Injection(prefix=prefix)})
    return parts.replace(aux_loss=loss)  # type: ignore[attr-defined]
