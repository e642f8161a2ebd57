"""Control prefixes: keys and values for the task, and some for each attribute of an example."""

from collections.abc import Mapping
from typing import Self

import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import TASK, Context, Dims, Injection
from prompt_jax.prompts.base import check_least
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning


class ControlPrefixes(PrefixTuning):
  """K = [C_n[y_n]; ...; C_1[y_1]; K_task] and V likewise (Clive et al. 2021, arXiv:2110.08329).

  y_i is the value of attribute i of an example. The rows of the task and of all values are those of
  one table, so that `tables.Mlp` maps them by one network, as published.

  Parameters: those of `PrefixTuning`, with `length` rows of the task, then `rows` of each value of
  the first attribute, and so on.

  Attributes:
    attributes: features of an example: columns of the data, or "task_id".
    values: how many values each has; a run takes them from its training examples.
    rows: keys of each value; the paper's 2.
  """

  attributes: tuple[str, ...] = (TASK,)
  values: tuple[int, ...] = ()
  rows: int = 2

  @property
  def depends_on(self) -> frozenset[str]:  # type: ignore[override]
    return frozenset(self.attributes)

  def for_features(self, counts: Mapping[str, int]) -> Self:
    known = zip(self.attributes, self._values(), strict=True)
    return self.clone(values=tuple(counts.get(name, count) for name, count in known))

  def _injection(self, ctx: Context, name: str, dims: Dims) -> Injection:
    values = self._values()
    every = self._rows(name, dims, self.length + self.rows * sum(values))
    parts, start = [every[:, :, :, : self.length]], self.length
    for attribute, count in zip(self.attributes, values, strict=True):
      ids = ctx.features[attribute]
      block = every[:, :, 0, start : start + count * self.rows]
      block = block.reshape(dims.L, 2, count, self.rows, dims.kv_heads, dims.D)
      parts.insert(0, block[:, :, ids])
      start += count * self.rows
    batch = ctx.features[self.attributes[0]].shape[0]
    wide = [jnp.broadcast_to(x, (*x.shape[:2], batch, *x.shape[3:])) for x in parts]
    kv: jax.Array = jnp.concatenate(wide, axis=3)
    return Injection(kv=kv, kv_bias=self.kv_bias)

  def _values(self) -> tuple[int, ...]:
    return self.values or (1,) * len(self.attributes)

  def _check(self) -> None:
    super()._check()
    check_least(self, rows=1)
    if not self.attributes or len(set(self.attributes)) < len(self.attributes):
      raise UserError(
        f'ControlPrefixes.attributes is {self.attributes!r}; expected one or more columns of '
        "the data, such as ('style',), or ('task_id',) for the tasks of a mixture."
      )
    if len(self._values()) != len(self.attributes):
      raise UserError(
        f'ControlPrefixes.values is {self.values!r}; expected a number for each of '
        f'{", ".join(self.attributes)}.'
      )
