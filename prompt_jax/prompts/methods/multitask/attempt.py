"""ATTEMPT: attention over the prompts of other tasks."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.injections import PLACEMENTS, TASK, Context, Injection, Injections, Placement
from prompt_jax.prompts.base import PromptMethod, check_choices, check_least
from prompt_jax.prompts.initializers import FromFiles, Initializer, SampledVocabulary
from prompt_jax.prompts.tables import symmetric_uniform


class Attempt(PromptMethod):
  """P(x) = sum_j a_j P_j + P_t, a = softmax_j(max(P_j) . h / T), h = LN(W_up silu(W_down max(x)))
  (ATTEMPT, EMNLP 2022, arXiv:2205.11961; equations of the authors' code).

  j goes over the sources, which stay as they are, and the target P_t, which so counts twice and
  begins as the first source. The maximum is over the tokens of an input, not over padding as there,
  or over the rows of a prompt. With `shared`, each task has a target and all have one attention.

  Parameters: `target` P_t [tasks, P, H]; `down` [H, hidden] and `up` [hidden, H] {kernel}; `norm`
  {scale, bias}. Constant: `sources` [sources, P, H].

  Attributes:
    length: P.
    sources: how many; the authors have 6.
    files: their rows, a .npy file of each; without files they are drawn by
    initializer: which knows no task, so that the attention has little to choose from.
    hidden: width of W_down; the authors' 100.
    temperature: T; 0 for e H, which is the authors' 2087 for T5 base.
    shared: whether a mixture of tasks has a target for each.
    tasks: a run on a mixture sets it to the number of its tasks.
    placement: where the rows go in the encoder's input.
  """

  length: int = 100
  sources: int = 6
  files: tuple[str, ...] = ()
  initializer: Initializer = dataclasses.field(default_factory=SampledVocabulary)
  hidden: int = 100
  temperature: float = 0.0
  shared: bool = False
  tasks: int = 1
  placement: Placement = 'before'

  @property
  def depends_on(self) -> frozenset[str]:  # type: ignore[override]
    return frozenset({'embeds', 'mask', *([TASK] if self.shared else [])})

  def for_features(self, counts: Mapping[str, int]) -> Self:
    return self.clone(tasks=counts.get(TASK, self.tasks))

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_least(self, length=1, sources=1, hidden=1, temperature=0, tasks=1)
    check_choices(self, placement=PLACEMENTS)
    assert ctx.embeds is not None  # declared, and so is the mask
    assert ctx.mask is not None
    count, length, width = self.sources, self.length, ctx.input_dims.H
    init = FromFiles(self.files) if self.files else self.initializer
    made = lambda: init(self.make_rng('params'), (count, length, width))
    sources = self.variable('constants', 'sources', made)
    first = lambda key: jnp.tile(sources.value[:1], (self.tasks, 1, 1))
    target = self.param('target', first)
    own = target[ctx.features[TASK]] if self.shared else target[:1]
    x = jnp.where(ctx.mask[..., None], ctx.embeds.astype(jnp.float32), -jnp.inf)
    x = jnp.where(jnp.any(ctx.mask, 1)[:, None], jnp.max(x, 1), 0.0)
    x = nn.silu(_matrix(self.hidden, width, 'down')(x))
    h = nn.LayerNorm(epsilon=1e-5, name='norm')(_matrix(width, self.hidden, 'up')(x))
    own = jnp.broadcast_to(own, (h.shape[0], length, width))
    every = jnp.broadcast_to(sources.value, (h.shape[0], *sources.value.shape))
    every = jnp.concatenate([every, own[:, None]], 1)  # [B, sources + 1, P, H]
    scores = jnp.einsum('bjh,bh->bj', jnp.max(every, 2), h)
    weights = nn.softmax(scores / (self.temperature or math.e * width))
    rows: jax.Array = jnp.einsum('bj,bjph->bph', weights, every) + own
    return Injections.of({ctx.input_stack: Injection(rows, placement=self.placement)})


def _matrix(features: int, inputs: int, name: str) -> nn.Dense:
  start = symmetric_uniform(inputs**-0.5)
  return nn.Dense(features, use_bias=False, kernel_init=start, name=name)
