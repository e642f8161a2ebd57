"""The metrics of a run, read one step late so that the device never waits for the host."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax

from prompt_jax.training.progress import Progress
from prompt_jax.training.records import Records

Values = dict[str, float]
# Called with a member's number, a step, and what was not finite there.
Diverged = Callable[[int, int, str], None]


class Monitor:
  """Takes each step's metrics while they are still being computed, and reads those before.

  It tells of the first loss, gradient or update of a member that is not finite, and then no more
  of that member; shows progress; and writes the mean of every `log_every` steps to the records.
  """

  def __init__(
    self, records: Sequence[Records], progress: Progress, log_every: int, diverged: Diverged
  ):
    """Args: records of every member, the bar, steps between records, and whom to tell."""
    self._records, self._progress, self._log_every = records, progress, log_every
    self._diverged = diverged
    self._pending: tuple[int, dict[int, dict[str, jax.Array]]] | None = None
    self._windows: dict[int, list[Values]] = {}
    self._gone: set[int] = set()
    self._examples, self._last = 0.0, 0
    self._since: float | None = None  # None until the first step, with its compiling, is over

  def push(self, step: int, metrics: dict[int, dict[str, jax.Array]]) -> None:
    """After dispatching `step`, with the metrics of each member: reads the step before it."""
    self.flush()
    self._pending = (step, metrics)

  def flush(self) -> None:
    """Reads the metrics that were pushed last, waiting for them if need be."""
    if self._pending is None:
      return
    step, metrics = self._pending
    self._pending = None
    found = jax.device_get({k: m for k, m in metrics.items() if k not in self._gone})
    losses, examples = [], 0.0
    for k, of_member in found.items():
      values = {name: float(value) for name, value in of_member.items()}
      if self._finite(k, step, values):
        self._windows.setdefault(k, []).append(values)
        losses.append(values['loss'])
        examples += values['examples']
    now = time.monotonic()
    if self._since is None:
      self._since = now
      self._progress.begin(step)
    else:
      self._examples += examples
    self._last = step
    report = step % self._log_every == 0
    if losses:
      self._progress.update(step, sum(losses) / len(losses), report)
    if report:
      self._record(step, now)

  def _finite(self, member: int, step: int, values: Values) -> bool:
    for name in ('loss', 'grad_norm', 'update_norm'):
      if not math.isfinite(values.get(name, 0.0)):
        self._gone.add(member)
        self._windows.pop(member, None)
        self._diverged(member, step, f'{name} is {values[name]}')
        return False
    return True

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Reads what was pushed; what happens inside does not count as time of training."""
    self.flush()
    began = time.monotonic()
    yield
    if self._since is not None:
      self._since += time.monotonic() - began

  def close(self, members: Iterable[int] | None = None) -> None:
    """Records the steps since the last record, if there are any; of all, or of those that leave."""
    self.flush()
    now = time.monotonic()
    for k in list(self._windows) if members is None else members:
      self._write(k, self._last, now)

  def _record(self, step: int, now: float) -> None:
    for k in list(self._windows):
      self._write(k, step, now)
    self._examples, self._since = 0.0, now

  def _write(self, member: int, step: int, now: float) -> None:
    window = self._windows.pop(member, [])
    if not window:
      return
    record: dict[str, Any] = {
      name: sum(values[name] for values in window) / len(window) for name in window[0]
    }
    if self._examples and self._since is not None and now > self._since:
      record['examples_per_second'] = self._examples / (now - self._since)  # of all members
    self._records[member].add(step, 'train', record)
