"""SIGTERM and Ctrl-C as a request to stop after the current step."""

import signal
import threading
from types import FrameType

from prompt_jax.runtime import processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What processes exchange: that one of them got a signal, and after which step all stop.
WANTED, LAST_STEP = 'stop_wanted', 'stop_after'


class Interrupt:
  """While it is entered, the first SIGTERM or SIGINT is recorded and the second has its old effect.

  Outside the main thread, where Python allows no handlers, both have their old effect.

  With several processes all stop after the same step, with SIGTERM in place of either signal, and a
  second signal changes nothing. JAX's own `multihost_utils.reached_preemption_sync_point` is not
  used: where steps are short a process passes the step before it knows of it.

  Attributes:
    signal: number of the signal after which to stop now, None if none came.
  """

  def __init__(self):
    self.signal: int | None = None
    self._received = self._announced = False
    self._last_step: int | None = None
    self._before: dict[int, object] = {}

  def __enter__(self) -> 'Interrupt':
    if threading.current_thread() is threading.main_thread():
      note = self._record if processes.count() == 1 else self._record_only
      self._before = {s: signal.signal(s, note) for s in SIGNALS}
    return self

  def __exit__(self, *_) -> None:
    self._restore_handlers()

  def reached(self, step: int) -> bool:
    """Whether to stop after this step.

    Every process must ask after every step, once it has read the results of the step before.
    """
    if processes.count() > 1 and self._agreed(step) == step:
      self.signal = signal.SIGTERM
    return self.signal is not None

  def _agreed(self, step: int) -> int | None:
    """The step after which all stop; None if no process is known to have got a signal.

    The first process decides before it continues. A process that asks two steps later has read the
    results of the step between, which the first process began after it decided: so the decision
    reaches each process in time, and none can be further.
    """
    if self._received and not self._announced:
      processes.set_value(WANTED, 'yes')
      self._announced = True
    if processes.is_first() and self._last_step is None and processes.get_value(WANTED):
      self._last_step = step + 2
      processes.set_value(LAST_STEP, str(self._last_step))
    if not processes.is_first():
      posted = processes.get_value(LAST_STEP)
      self._last_step = None if posted is None else int(posted)
    return self._last_step

  @property
  def exit_code(self) -> int:
    """128 + signal, as shells report a process that a signal ended: 143 for SIGTERM."""
    return 128 + (self.signal or 0)

  def _record(self, number: int, _: FrameType | None) -> None:
    self.signal = number
    self._restore_handlers()

  def _record_only(self, *_) -> None:
    self._received = True

  def _restore_handlers(self) -> None:
    while self._before:
      number, handler = self._before.popitem()
      signal.signal(number, handler)  # type: ignore[arg-type]
