"""The metrics of a run, read one step late so that the device never waits for the host."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import jax

from prompt_jax.errors import UserError
from prompt_jax.training.progress import Progress
from prompt_jax.training.records import Records


class Monitor:
  """Takes each step's metrics while they are still being computed, and reads those before.

  It stops the run at the first loss, gradient or update that is not finite, shows progress, and
  writes the mean of every `log_every` steps to the records.
  """

  def __init__(self, records: Records, progress: Progress, log_every: int):
    self._records, self._progress, self._log_every = records, progress, log_every
    self._pending: tuple[int, dict[str, jax.Array]] | None = None
    self._window: list[dict[str, float]] = []
    self._examples, self._last = 0.0, 0
    self._since: float | None = None  # None until the first step, with its compiling, is over

  def push(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """After dispatching `step`: reads the step before it."""
    self.flush()
    self._pending = (step, metrics)

  def flush(self) -> None:
    """Reads the metrics that were pushed last, waiting for them if need be.

    Raises:
      UserError: they are not finite; the step is named.
    """
    if self._pending is None:
      return
    step, metrics = self._pending
    self._pending = None
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name in ('loss', 'grad_norm', 'update_norm'):
      if not math.isfinite(values[name]):
        raise UserError(
          f'{name} is {values[name]} at step {step}. Its state was not saved. Lower the learning '
          'rate, warm it up, or look at the data of that step; then begin in another output folder.'
        )
    now = time.monotonic()
    if self._since is None:
      self._since = now
      self._progress.begin(step)
    else:
      self._examples += values['examples']
    self._window.append(values)
    self._last = step
    report = step % self._log_every == 0
    self._progress.update(step, values['loss'], report)
    if report:
      self._record(step, now)

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Reads what was pushed; what happens inside does not count as time of training."""
    self.flush()
    began = time.monotonic()
    yield
    if self._since is not None:
      self._since += time.monotonic() - began

  def close(self) -> None:
    """Records the steps since the last record, if there are any."""
    self.flush()
    if self._window:
      self._record(self._last, time.monotonic())

  def _record(self, step: int, now: float) -> None:
    n = len(self._window)
    record: dict[str, Any] = {
      name: sum(values[name] for values in self._window) / n for name in self._window[0]
    }
    if self._examples and self._since is not None and now > self._since:
      record['examples_per_second'] = self._examples / (now - self._since)
    self._records.add(step, 'train', record)
    self._window, self._examples, self._since = [], 0.0, now
