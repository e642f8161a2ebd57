"""SIGTERM and Ctrl-C as a wish to stop after the current step."""

import signal
import threading
from types import FrameType

from prompt_jax.runtime import processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What processes tell each other: that one of them got a signal, and after which step all stop.
WANTED, LAST_STEP = 'stop_wanted', 'stop_after'


class Interrupt:
  """While it is entered, the first SIGTERM or SIGINT is noted and the second acts as before.

  Outside the main thread, where Python allows no handlers, signals act as before.

  With several processes all stop after one step, with SIGTERM whatever came, and a second signal
  changes nothing. JAX's own agreement (`multihost_utils.reached_preemption_sync_point`) is not
  used: where steps are short a process goes past the step before it has heard of it.

  Attributes:
    signal: number of the signal after which to stop now, None if none came.
  """

  def __init__(self):
    self.signal: int | None = None
    self._came = self._told = False
    self._last_step: int | None = None
    self._before: dict[int, object] = {}

  def __enter__(self) -> 'Interrupt':
    if threading.current_thread() is threading.main_thread():
      note = self._note if processes.count() == 1 else self._note_only
      self._before = {s: signal.signal(s, note) for s in SIGNALS}
    return self

  def __exit__(self, *_) -> None:
    self._give_back()

  def reached(self, step: int) -> bool:
    """Whether to stop after this step.

    Every process must ask after every step, once it has read what the step before gave.
    """
    if processes.count() > 1 and self._agreed(step) == step:
      self.signal = signal.SIGTERM
    return self.signal is not None

  def _agreed(self, step: int) -> int | None:
    """The step after which all stop; None if none of them got a signal, as far as is known.

    The first process decides before it goes on. A process that asks after the next step but one
    has read what the next step gave, which the first one began after it decided: so it is told in
    time, and none can be further.
    """
    if self._came and not self._told:
      processes.set_value(WANTED, 'yes')
      self._told = True
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

  def _note(self, number: int, _: FrameType | None) -> None:
    self.signal = number
    self._give_back()

  def _note_only(self, *_) -> None:
    self._came = True

  def _give_back(self) -> None:
    while self._before:
      number, handler = self._before.popitem()
      signal.signal(number, handler)  # type: ignore[arg-type]
