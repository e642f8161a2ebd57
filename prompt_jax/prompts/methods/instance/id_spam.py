"""ID-SPAM: attention over the input's embeddings generates the prompt."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.prompts.base import PromptMethod, check_least, check_length, masked_mean
from prompt_jax.prompts.tables import linear


class IDSPAM(PromptMethod):
  """P(x) = reshape(W_up relu(W_down mean(A))), A = softmax(X Wq (X Wk)^T / sqrt(H)) X Wv
  (ID-SPAM, ACL 2025, arXiv:2506.05629).

  Mean and attention are over the tokens of an example; padding counts for nothing.

  Parameters: `query`, `key`, `value` {kernel [H, H]}; `down`, `up` {kernel, bias}.

  Attributes:
    length: P.
    hidden: width between W_down and W_up.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({'embeds', 'mask'})

  length: int = 10
  hidden: int = 64

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_least(self, hidden=1)
    width = ctx.input_dims.H
    assert ctx.embeds is not None  # declared, and so is the mask
    assert ctx.mask is not None
    x = ctx.embeds.astype(jnp.float32)
    q, k, v = (nn.Dense(width, use_bias=False, name=n)(x) for n in ('query', 'key', 'value'))
    scores = jnp.einsum('bqh,bkh->bqk', q, k) * width**-0.5
    scores = jnp.where(ctx.mask[:, None], scores, -1e9)
    h = masked_mean(nn.softmax(scores) @ v, ctx.mask)
    h = nn.relu(linear(self.hidden, width, 'down')(h))
    rows = linear(self.length * width, self.hidden, 'up')(h).reshape(-1, self.length, width)
    return Injections.of({ctx.input_stack: Injection(prefix=rows)})
