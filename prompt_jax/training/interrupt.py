"""SIGTERM and Ctrl-C as a wish to stop after the current step."""

import signal
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupt:
  """While it is entered, the first SIGTERM or SIGINT is noted and the second acts as before.

  Outside the main thread, where Python allows no handlers, signals act as before.

  Attributes:
    signal: number of the signal that came, None if none did.
  """

  def __init__(self):
    self.signal: int | None = None
    self._before: dict[int, object] = {}

  def __enter__(self) -> 'Interrupt':
    if threading.current_thread() is threading.main_thread():
      self._before = {s: signal.signal(s, self._note) for s in SIGNALS}
    return self

  def __exit__(self, *_) -> None:
    self._give_back()

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
