"""What a user decides about a training run, as data."""

import dataclasses

from prompt_jax.errors import UserError, unknown
from prompt_jax.training.objective import PROMPT_ONLY


@dataclasses.dataclass(frozen=True)
class Settings:
  """How long, what and how often.

  Attributes:
    steps: updates in all, those of an earlier part of the run included; 0 leaves the first values.
    patterns: what trains, see `objective.split`.
    microbatches: parts that a batch is cut into, see `objective.BatchLoss`; None for what suits the
      device.
    dropout: whether the backbone drops out; for the caller, who makes the objective. The published
      runs do (0.1); a frozen model trains better without.
    seed: of dropout, and of the run as a whole in its records.
    eval_every: steps between evaluations; 0 evaluates at the end only.
    eval_at_start: also evaluate before the first step.
    save_every: steps between saved states; 0 saves at the end (and on signals) only.
    log_every: steps between records of the training metrics.
    keep: latest states kept, besides the best.
    metric: validation metric that chooses the best step; None takes the last step.
    mode: "max" or "min", which values of it are good.
    patience: stop after so many evaluations in a row that were not better; None never does.
    warm_start: path of a prompt file to begin with instead of the fresh prompt.
    prefetch: batches made ahead of the step.
    profile: trace a few steps, see `monitor.Profile`.
  """

  steps: int
  patterns: tuple[str, ...] = PROMPT_ONLY
  microbatches: int | None = None
  dropout: bool = False
  seed: int = 0
  eval_every: int = 1000
  eval_at_start: bool = False
  save_every: int = 1000
  log_every: int = 50
  keep: int = 1
  metric: str | None = None
  mode: str = 'max'
  patience: int | None = None
  warm_start: str | None = None
  prefetch: int = 2
  profile: bool = False

  def __post_init__(self):
    object.__setattr__(self, 'patterns', tuple(self.patterns))
    for name in ('log_every', 'keep', 'prefetch'):
      self._at_least(name, 1)
    for name in ('steps', 'seed', 'eval_every', 'save_every'):
      self._at_least(name, 0)
    if self.seed >= 2**32:
      raise UserError(f'seed is {self.seed}; expected less than 2**32.')
    if self.mode not in ('max', 'min'):
      raise unknown('selection mode', self.mode, ('max', 'min'))
    for name in ('microbatches', 'patience'):
      if getattr(self, name) is not None:
        self._at_least(name, 1)

  @property
  def record_every(self) -> int:
    """`log_every`, or less in a run so short that its curve would be a point or two."""
    if self.steps >= 2 * self.log_every:
      return self.log_every
    return min(self.log_every, max(1, self.steps // 10))

  def _at_least(self, name: str, least: int) -> None:
    value = getattr(self, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
      raise UserError(f'{name} is {value!r}; expected a whole number of at least {least}.')
