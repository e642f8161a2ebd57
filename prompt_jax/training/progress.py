"""A progress bar on a terminal; plain lines elsewhere."""

import datetime
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar


class Progress:
  """Shows how far a run is, its rate, its loss and when it will end."""

  def __init__(self, total: int, done: int, console: Console | None = None):
    """Args: total steps of the run, steps done before, and where to print."""
    self.console = console or Console()
    self._total, self._first = total, done
    self._began = time.monotonic()
    self._bar: Bar | None = None
    if self.console.is_terminal:
      self._bar = Bar(
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn('{task.description}'),
        console=self.console,
        transient=True,
      )
      self._task = self._bar.add_task('compiling', total=total, completed=done)

  def __enter__(self) -> 'Progress':
    if self._bar is not None:
      self._bar.start()
    return self

  def __exit__(self, *_) -> None:
    if self._bar is not None:
      self._bar.stop()

  def begin(self, done: int) -> None:
    """Counts the rate from here, so that compiling is not part of it."""
    self._first, self._began = done, time.monotonic()

  def update(self, done: int, loss: float, report: bool) -> None:
    """After a step; where there is no bar, a line is printed if `report`."""
    if self._bar is None and not report:
      return
    seconds = time.monotonic() - self._began
    rate = (done - self._first) / seconds if seconds > 0 else 0.0
    left = (self._total - done) / rate if rate > 0 else None
    text = f'loss {loss:.4f}  {_rate(rate)}  {_end(left)}'
    if self._bar is not None:
      self._bar.update(self._task, completed=done, description=text)
    else:
      self.say(f'step {done}/{self._total}  {text}')

  def say(self, text: str) -> None:
    """Prints a line, above the bar if there is one."""
    self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _rate(rate: float) -> str:
  """Steps a second, or seconds a step where steps are long."""
  if rate <= 0:
    return '- steps/s'
  return f'{rate:.1f} steps/s' if rate >= 1 else f'{1 / rate:.1f} s/step'


def _end(left: float | None) -> str:
  if left is None:
    return 'ends -'
  now = datetime.datetime.now()
  end = now + datetime.timedelta(seconds=left)
  return f'ends {end:%H:%M:%S}' if end.date() == now.date() else f'ends {end:%b %d %H:%M}'
