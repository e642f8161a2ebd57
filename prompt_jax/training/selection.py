"""Which step was best on a validation metric, and when to stop waiting for a better one."""

import dataclasses
import math
from collections.abc import Mapping

from prompt_jax.errors import unknown


@dataclasses.dataclass(frozen=True)
class Selection:
  """The best evaluation so far; JSON values only, so that it is part of the run state.

  Attributes:
    best: value of the metric, None before the first evaluation.
    step: where it was.
    since: evaluations since then that were not better.
  """

  best: float | None = None
  step: int | None = None
  since: int = 0

  def updated(self, step: int, value: float, mode: str) -> 'Selection':
    """The selection after one more evaluation. Of equal values the first stays; NaN never wins."""
    sign = {'max': 1.0, 'min': -1.0}[mode]
    worse = self.best is not None and not sign * value > sign * self.best
    if math.isnan(value) or worse:
      return dataclasses.replace(self, since=self.since + 1)
    return Selection(best=float(value), step=step, since=0)

  def exhausted(self, patience: int | None) -> bool:
    """Whether `patience` evaluations in a row were not better."""
    return patience is not None and self.since >= patience


def metric_value(metrics: Mapping[str, float], name: str) -> float:
  """The metric to select by.

  Raises:
    UserError: there is none of that name; those that there are are listed.
  """
  if name not in metrics:
    raise unknown('validation metric', name, metrics)
  return float(metrics[name])
