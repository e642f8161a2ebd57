"""SIGTERM and Ctrl-C as a wish to stop after the current step."""

import os
import signal
import threading
from types import FrameType

from jax.experimental import multihost_utils

from prompt_jax import processes

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupt:
  """While it is entered, the first SIGTERM or SIGINT is noted and the second acts as before.

  Outside the main thread, where Python allows no handlers, signals act as before.

  With several processes SIGTERM is left to JAX, which tells the others and finds a step at which
  all stop; SIGINT becomes SIGTERM.

  Attributes:
    signal: number of the signal that came, None if none did.
  """

  def __init__(self):
    self.signal: int | None = None
    self._before: dict[int, object] = {}

  def __enter__(self) -> 'Interrupt':
    if threading.current_thread() is threading.main_thread():
      if processes.count() > 1:
        self._before = {signal.SIGINT: signal.signal(signal.SIGINT, _terminate)}
      else:
        self._before = {s: signal.signal(s, self._note) for s in SIGNALS}
    return self

  def __exit__(self, *_) -> None:
    if self._before and processes.count() > 1:
      signal.signal(signal.SIGTERM, signal.SIG_DFL)  # after the loop nothing waits for it
    self._give_back()

  def reached(self, step: int) -> bool:
    """Whether to stop after this step. Every process must ask after every step."""
    if processes.count() > 1 and multihost_utils.reached_preemption_sync_point(step):
      self.signal = signal.SIGTERM
    return self.signal is not None

  @property
  def exit_code(self) -> int:
    """128 + signal, as shells report a process that a signal ended: 143 for SIGTERM."""
    return 128 + (self.signal or 0)

  def _note(self, number: int, _: FrameType | None) -> None:
    self.signal = number
    self._give_back()

  def _give_back(self) -> None:
    while self._before:
      number, handler = self._before.popitem()
      signal.signal(number, handler)  # type: ignore[arg-type]


def _terminate(*_) -> None:
  os.kill(os.getpid(), signal.SIGTERM)
