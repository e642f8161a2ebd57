"""Tables: how a block of prompt numbers is parametrised. `table(shape) -> float32[shape]`.

The shape ends in (P, H); axes before that (layers, keys and values) each hold one prompt. A table
does not know where its rows go. The input of a re-parametrisation is [P, width], one row per
prompt row, and its last layer makes all leading axes at once, as prefix tuning does.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.prompts.base import check_choices
from prompt_jax.prompts.initializers import Initializer, Normal, Uniform

Array = jax.Array
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {'tanh': jnp.tanh, 'relu': nn.relu}


def free(module: nn.Module, name: str, initializer: Initializer, shape: Sequence[int]) -> Array:
  """A parameter that starts as `initializer` says.

  Flax traces the function of a parameter again at every call, to check its shape; the embedding
  table and the files that an initialiser reads are there only the first time.
  """
  init = initializer if module.is_initializing() else lambda key, shape: jnp.zeros(shape)
  return module.param(name, init, tuple(shape))


def linear(features: int, inputs: int, name: str) -> nn.Dense:
  """A layer that starts as torch's: kernel and bias in U(-1/sqrt(inputs), 1/sqrt(inputs))."""
  start = symmetric_uniform(inputs**-0.5)
  return nn.Dense(features, kernel_init=start, bias_init=start, name=name)


def symmetric_uniform(limit: float) -> Callable[..., Array]:
  """A Flax initialiser: U(-limit, limit)."""
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -limit, limit)


class Plain(nn.Module):
  """Free numbers (Lester et al. 2021, arXiv:2104.08691). Parameter: `prompt` [..., P, H]."""

  initializer: Initializer = dataclasses.field(default_factory=Uniform)

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    return free(self, 'prompt', self.initializer, shape)


class LowRank(nn.Module):
  """left @ right (LoPT, arXiv:2406.19486; DPT, arXiv:2310.10094).

  It starts as the best approximation of rank `rank` to a plain table: with its singular value
  decomposition u s v, left = u sqrt(s) and right = sqrt(s) v. Random factors, as published, start
  with rows far shorter than embeddings.

  Parameters: `left` [..., P, rank], `right` [..., rank, H].

  Attributes:
    rank: at most P and H.
    initializer: of the table that is approximated.
  """

  rank: int = 10
  initializer: Initializer = dataclasses.field(default_factory=Uniform)

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    *lead, p, h = shape
    if not 1 <= self.rank <= min(p, h):
      raise UserError(
        f'LowRank.rank is {self.rank}; a table of {p} rows of width {h} needs 1 to {min(p, h)}.'
      )
    if self.is_initializing():
      left, right = truncated_svd(
        self.initializer(self.make_rng('params'), tuple(shape)), self.rank
      )
    else:
      left, right = jnp.zeros((*lead, p, self.rank)), jnp.zeros((*lead, self.rank, h))
    return self.param('left', lambda key: left) @ self.param('right', lambda key: right)


def truncated_svd(value: Array, rank: int) -> tuple[Array, Array]:
  """The balanced factors [..., P, rank] and [..., rank, H] nearest to `value` [..., P, H].

  Where a singular value is 0, the left vector stays a unit vector: two zero factors would get no
  gradient from each other.
  """
  u, s, v = jnp.linalg.svd(value, full_matrices=False)
  u, s, v = u[..., :, :rank], s[..., None, :rank], v[..., :rank, :]
  dead = s <= 1e-6 * jnp.max(s, axis=-1, keepdims=True)
  left = u * jnp.where(dead, 1.0, jnp.sqrt(s))
  right = jnp.swapaxes(jnp.where(dead, 0.0, jnp.sqrt(s)), -1, -2) * v
  return left, right


class Mlp(nn.Module):
  """W2 act(W1 e + b1) + b2, with a free e (prefix tuning, arXiv:2101.00190: act = tanh).

  With relu and hidden = width it is the "MLP" prompt encoder of P-tuning (arXiv:2103.10385).
  Parameters: `prompt` [P, width], `hidden`, `out` {kernel, bias}.

  Attributes:
    hidden: width of the middle; 512 for GPT-2 and 800 for BART in the prefix tuning paper.
    width: of e; None for the width of the table's rows.
    activation: "tanh" or "relu".
    initializer: of e.
  """

  hidden: int = 512
  width: int | None = None
  activation: Literal['tanh', 'relu'] = 'tanh'
  initializer: Initializer = dataclasses.field(default_factory=Normal)

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    *lead, p, h = shape
    check_choices(self, activation=ACTIVATIONS)
    width = self.width or h
    e = free(self, 'prompt', self.initializer, (p, width))
    x = ACTIVATIONS[self.activation](linear(self.hidden, width, 'hidden')(e))
    return _spread(linear(math.prod(lead) * h, self.hidden, 'out')(x), shape)


class Lstm(nn.Module):
  """W2 relu(W1 BiLSTM(e) + b1) + b2, with a free e (P-tuning v1, arXiv:2103.10385).

  Parameters: `prompt` [P, width]; for each layer i `forward_i` and `backward_i` {input [in, 4h],
  recurrent [h, 4h], bias [4h]}; `hidden`, `out` {kernel, bias}.

  Attributes:
    hidden: h, width of each direction; None for width / 2, as published.
    layers: of the LSTM.
    width: of e; None for the width of the table's rows.
    initializer: of e.
  """

  hidden: int | None = None
  layers: int = 2
  width: int | None = None
  initializer: Initializer = dataclasses.field(default_factory=Normal)

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    *lead, p, h = shape
    width = self.width or h
    hidden = self.hidden or width // 2
    x = free(self, 'prompt', self.initializer, (p, width))
    for i in range(self.layers):
      forward = LstmDirection(hidden, name=f'forward_{i}')(x)
      backward = LstmDirection(hidden, name=f'backward_{i}')(x[::-1])[::-1]
      x = jnp.concatenate([forward, backward], axis=-1)
    x = nn.relu(linear(width, 2 * hidden, 'hidden')(x))
    return _spread(linear(math.prod(lead) * h, width, 'out')(x), shape)


class LstmDirection(nn.Module):
  """One LSTM along the rows: [P, in] -> [P, hidden]. Gates in torch's order i, f, g, o."""

  hidden: int

  @nn.compact
  def __call__(self, x: Array) -> Array:
    start = symmetric_uniform(self.hidden**-0.5)
    gates = 4 * self.hidden
    kernel = self.param('input', start, (x.shape[-1], gates))
    x = x @ kernel + self.param('bias', start, (gates,))[None]
    recurrent = self.param('recurrent', start, (self.hidden, gates))

    def step(carry, row):
      h, c = carry
      i, f, g, o = jnp.split(row + h @ recurrent, 4)
      c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
      h = nn.sigmoid(o) * jnp.tanh(c)
      return (h, c), h

    zero = jnp.zeros(self.hidden)
    return jax.lax.scan(step, (zero, zero), x)[1]


class Residual(nn.Module):
  """P_i + LN(W_up relu(W_down P_i + b1) + b2) (Residual Prompt Tuning, arXiv:2305.03937).

  One network is shared by all rows; the layer norm is inside the residual branch.
  Parameters: `base` (the inner table's), `down`, `up` {kernel, bias}, `norm` {scale, bias}.

  Attributes:
    base: the table of P.
    bottleneck: width between down and up; the authors' code has 800.
  """

  base: nn.Module = dataclasses.field(default_factory=Plain)
  bottleneck: int = 800

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    p = self.base(shape)
    h = shape[-1]
    x = nn.relu(linear(self.bottleneck, h, 'down')(p))
    x = linear(h, self.bottleneck, 'up')(x)
    return p + nn.LayerNorm(epsilon=1e-5, name='norm')(x)


def _spread(x: Array, shape: Sequence[int]) -> Array:
  """[P, prod(lead) * H] -> (*lead, P, H)."""
  *lead, p, h = shape
  return jnp.moveaxis(x.reshape(p, *lead, h), 0, -2)
