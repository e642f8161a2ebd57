"""Learning to prompt: an input takes the prompts of a pool whose keys are nearest to it."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.prompts.base import PromptMethod, check_least, check_length, own_table
from prompt_jax.prompts.tables import Plain, symmetric_uniform


class L2P(PromptMethod):
  """P(x) = [P_i for the N largest cos(q(x), k_i)], loss - pull mean_i cos(q(x), k_i) over them
  (Learning to Prompt, CVPR 2022, arXiv:2112.08654; its port to PyTorch).

  q(x) is the mean of the frozen encoder's states, for which the input passes through it once more.
  Rows alone give keys no gradient: the pull does, to those that are chosen.

  Parameters: a table at `encoder` [prompts, P, H]; `keys` k [prompts, H] from U(-1, 1).

  Attributes:
    length: P, rows of each prompt of the pool; the authors take 5.
    prompts: how many there are; the authors take 10.
    chosen: N, of an input; the authors take 5.
    pull: weight of the loss that draws chosen keys to their inputs; the authors' 0.1.
    table: how the rows are parametrised.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({'pooled'})

  length: int = 5
  prompts: int = 10
  chosen: int = 5
  pull: float = 0.1
  table: nn.Module = dataclasses.field(default_factory=Plain)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_least(self, prompts=1, pull=0)
    if not 1 <= self.chosen <= self.prompts:
      raise UserError(f'L2P.chosen is {self.chosen}; expected 1 to {self.prompts}, its prompts.')
    width = ctx.input_dims.H
    rows = own_table(self, self.table, ctx.input_stack)((self.prompts, self.length, width))
    keys = self.param('keys', symmetric_uniform(1.0), (self.prompts, width))
    assert ctx.pooled is not None  # declared
    near, which = jax.lax.top_k(_unit(ctx.pooled.astype(jnp.float32)) @ _unit(keys).T, self.chosen)
    prefix = rows[which].reshape(-1, self.chosen * self.length, width)
    parts = Injections.of({ctx.input_stack: Injection(prefix)})
    return parts.replace(aux_loss=-self.pull * jnp.mean(near))  # type: ignore[attr-defined]


def _unit(x: jax.Array) -> jax.Array:
  return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-12))
