"""IDPG: a small network generates the prompt of each input."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.prompts.base import PromptMethod, check_least, check_length, own_table
from prompt_jax.prompts.tables import Plain

Array = jax.Array


class IDPG(PromptMethod):
  """P(x) = S + reshape(W2 relu(W1 m(x) + b1) + b2) (IDPG, NAACL 2022, arXiv:2204.04497).

  m(x) is the mean of the frozen encoder's states, for which the input passes through it once more.
  With `kronecker` n > 1 the matrices are sums of Kronecker products, W = sum_i A_i x B_i with n
  terms (parametrised hypercomplex multiplication, the paper's IDPG-PHM). The paper generates the
  whole prompt; the shared rows S, which start from the vocabulary, keep it at the scale of
  embeddings, and `shared=False` is without them.

  Parameters: a table at `encoder` S [P, H]; `down`, `up` {kernel, bias}, or {left, right, bias}.

  Attributes:
    length: P; the paper's 5.
    hidden: width between W1 and W2; the paper's 16.
    kronecker: n; it divides H, `hidden` and P * H. 1 for plain matrices.
    shared: whether S is there.
    table: how S is parametrised.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({'pooled'})

  length: int = 5
  hidden: int = 16
  kronecker: int = 1
  shared: bool = True
  table: nn.Module = dataclasses.field(default_factory=Plain)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_length(self)
    check_least(self, hidden=1)
    width = ctx.input_dims.H
    assert ctx.pooled is not None  # declared
    x = ctx.pooled.astype(jnp.float32)
    x = nn.relu(Kronecker(self.hidden, self.kronecker, name='down')(x))
    rows = Kronecker(self.length * width, self.kronecker, name='up')(x)
    rows = rows.reshape(-1, self.length, width)
    if self.shared:
      rows = rows + own_table(self, self.table, ctx.input_stack)((self.length, width))[None]
    return Injections.of({ctx.input_stack: Injection(prefix=rows)})


class Kronecker(nn.Module):
  """x W + b, W = sum_i left_i x right_i, from N(0, 0.05^2); one plain matrix where terms = 1.

  Parameters: `left` [terms, terms, terms], `right` [terms, inputs / terms, features / terms], or
  `kernel` [inputs, features]; `bias` [features].
  """

  features: int
  terms: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    n, inputs, start = self.terms, x.shape[-1], nn.initializers.normal(0.05)
    if n < 1 or inputs % n or self.features % n:
      raise UserError(
        f'IDPG.kronecker is {n}; it must divide {inputs} and {self.features}, the widths of a '
        'matrix.'
      )
    bias = self.param('bias', nn.initializers.zeros, (self.features,))[None]
    if n == 1:
      return x @ self.param('kernel', start, (inputs, self.features)) + bias
    left = self.param('left', start, (n, n, n))
    right = self.param('right', start, (n, inputs // n, self.features // n))
    # (A x B)[i p, j q] = A[i, j] B[p, q].
    cut = x.reshape(*x.shape[:-1], n, inputs // n)
    y = jnp.einsum('...ip,nij,npq->...jq', cut, left, right)
    return y.reshape(*x.shape[:-1], self.features) + bias
