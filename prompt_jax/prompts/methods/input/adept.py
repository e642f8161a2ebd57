"""ADePT: a short prompt and a small network that moves every token embedding."""

import dataclasses
from typing import ClassVar

import flax.linen as nn

from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.prompts.base import PromptMethod, check_least, check_length, own_table
from prompt_jax.prompts.tables import Plain, symmetric_uniform


class ADePT(PromptMethod):
  """X' = [P; X + relu(X W1 + b1) W2 + b2] (arXiv:2501.03291; its authors' code).

  The network is the same for every token, so the length of the input and padding do not matter.
  W2, b1 and b2 start at 0: at first the method is prompt tuning. W1 starts as the released code
  has it: torch's kaiming_uniform(a=sqrt(5)) on a [H, rank] array takes `rank` for the number of
  inputs, which gives U(-1/sqrt(rank), 1/sqrt(rank)). The released code also drops out a tenth of
  the hidden units in training, which the paper's equation does not have; neither has this.

  Parameters: a table at `encoder`; `down/kernel` W1 [H, rank], `down/bias`, `up/kernel` W2
  [rank, H], `up/bias`. The authors train the prompt at 0.3 and the network at 1e-4.

  Attributes:
    length: P; the authors take 60 for T5 base, which with rank 19 costs 100 plain rows.
    rank: width of the network.
    table: of the prompt rows.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({'embeds'})

  length: int = 60
  rank: int = 19
  table: nn.Module = dataclasses.field(default_factory=Plain)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_least(self, rank=1)
    width = ctx.input_dims.H
    rows = own_table(self, self.table, ctx.input_stack)((self.length, width))
    start = symmetric_uniform(self.rank**-0.5)
    x = nn.relu(nn.Dense(self.rank, kernel_init=start, name='down')(ctx.embeds))
    delta = nn.Dense(width, kernel_init=nn.initializers.zeros, name='up')(x)
    return Injections.of({ctx.input_stack: Injection(prefix=rows[None], delta=delta)})
