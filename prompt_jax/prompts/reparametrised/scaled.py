"""Scaled Prompt-Tuning: trained rows times a trained factor."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax

from prompt_jax.prompts.base import check_choices
from prompt_jax.prompts.tables import Plain

Array = jax.Array


class Scaled(nn.Module):
  """s P, s from 1 (Scaled Prompt-Tuning for few-shot generation, arXiv:2309.06759).

  The shape of s is ours to choose: one number, one for each row, or one for each column.

  Parameters: `base` (the inner table's), `scale` s [..., 1, 1], [..., P, 1] or [..., 1, H].

  Attributes:
    base: the table of P.
    axis: "all", "row" or "column".
  """

  base: nn.Module = dataclasses.field(default_factory=Plain)
  axis: Literal['all', 'row', 'column'] = 'all'

  @nn.compact
  def __call__(self, shape: Sequence[int]) -> Array:
    *lead, p, h = shape
    sizes = {'all': (1, 1), 'row': (p, 1), 'column': (1, h)}
    check_choices(self, axis=sizes)
    scale = self.param('scale', nn.initializers.ones, (*lead, *sizes[self.axis]))
    rows: Array = self.base(shape)
    return scale * rows
