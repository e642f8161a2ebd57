"""MAM: a short prefix in attention, and a parallel adapter beside the mlp."""

import dataclasses

import flax.linen as nn

from prompt_jax.injections import Context, Injections
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.prompts.methods.inside.parallel_adapter import ParallelAdapter
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.prompts.tables import Mlp


class MAM(PromptMethod):
  """The mix-and-match adapter (He et al. 2022, arXiv:2110.04366, section 4.6): `PrefixTuning` with
  few keys and values, and `ParallelAdapter`.

  Parameters: those of the two, at `prefix` and at `adapter`.

  Attributes:
    length: keys of the prefix; the paper's 30.
    size: width of the adapter; the paper's 512.
    scale: of the adapter; the paper's 4.
    table: how the keys and values are parametrised; in the paper a network of 800.
  """

  length: int = 30
  size: int = 512
  scale: float = 4.0
  table: nn.Module = dataclasses.field(default_factory=lambda: Mlp(hidden=800))

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    table = self.table.copy(parent=None)
    prefix: Injections = PrefixTuning(self.length, table, name='prefix')(ctx)
    adapter: Injections = ParallelAdapter(self.size, self.scale, name='adapter')(ctx)
    parts = {}
    for stack in ('encoder', 'decoder', 'cross'):
      inside = getattr(adapter, stack).inside
      parts[stack] = dataclasses.replace(getattr(prefix, stack), inside=inside)
    return Injections.of(parts)
