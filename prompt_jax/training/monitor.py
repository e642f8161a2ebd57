"""Around the steps of a run: its progress, metrics and profile, and the signals that stop it."""

import contextlib
import math
import os
import pathlib
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from prompt_jax.runtime import processes
from prompt_jax.runtime.processes import draws_bars, ends
from prompt_jax.training.records import Records

Values = dict[str, float]
# Called with a member's number, a step, and what was not finite there.
Diverged = Callable[[int, int, str], None]
# Steps before a profile, in which programs of all widths are compiled and caches fill.
SKIPPED = 20
TRACED = 5
SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Handlers that no program wrote; SIGINT is ignored where a shell started the run with `&`.
ENDING = (signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler)
MOMENT = 1.0  # seconds that Python has to raise what a second signal raises
SEEN = (
  'the run saves and ends after the step (or evaluation) that it computes or compiles now; again '
  'ends it at once, without saving.'
)
# What processes exchange: that one of them got a signal, and after which step all stop.
WANTED, LAST_STEP = 'stop_wanted', 'stop_after'


class Progress:
  """Shows how far a run is, its rate, its loss and when it will end."""

  def __init__(self, total: int, done: int, console: Console | None = None):
    """Args: total steps of the run, steps done before, and where to print."""
    self.console = console or Console()
    self._total, self._first = total, done
    self._began = time.monotonic()
    self._bar: Bar | None = None
    if draws_bars(self.console):
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

  def update(self, done: int, loss: float, log: bool) -> None:
    """After a step; where there is no bar, a line is printed if `log`."""
    if self._bar is None and not log:
      return
    seconds = time.monotonic() - self._began
    rate = (done - self._first) / seconds if seconds > 0 else 0.0
    left = (self._total - done) / rate if rate > 0 else None
    text = f'loss {loss:.4f}  {_rate(rate)}  {ends(left)}'
    if self._bar is not None:
      self._bar.update(self._task, completed=done, description=text)
    else:
      self.say(f'step {done}/{self._total}  {text}')

  def say(self, text: str) -> None:
    """Prints a line, above the bar if there is one."""
    self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Monitor:
  """Takes each step's metrics while they are still being computed, and reads those before.

  It reports the first loss, gradient or update of a member that is not finite and ignores that
  member from then on; shows progress; and records the mean of every `log_every` steps.
  """

  def __init__(
    self,
    records: Sequence[Records],
    windows: Sequence[list[Values]],
    progress: Progress,
    log_every: int,
    diverged: Diverged,
  ):
    """Args: of every member its records, and the metrics of steps that are in none yet, which are
    kept up to date; the bar, steps between records, what diverging calls."""
    self._records, self._progress, self._log_every = records, progress, log_every
    self._diverged = diverged
    self._pending: tuple[int, dict[int, dict[str, jax.Array]]] | None = None
    self._windows = windows
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
        window = self._windows[k]
        window.append(values)
        # What is shown is what is recorded: the mean since the last record.
        losses.append(sum(v['loss'] for v in window) / len(window))
        examples += values['examples']
    now = time.monotonic()
    if self._since is None:
      self._since = now
      self._progress.begin(step)
    else:
      self._examples += examples
    self._last = step
    log = step % self._log_every == 0
    if losses:
      self._progress.update(step, sum(losses) / len(losses), log)
    if log:
      self._record(step, now)

  def _finite(self, member: int, step: int, values: Values) -> bool:
    for name in ('loss', 'grad_norm', 'update_norm'):
      if not math.isfinite(values.get(name, 0.0)):
        self._gone.add(member)
        self._windows[member].clear()
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
    for k in range(len(self._windows)) if members is None else members:
      self._write(k, self._last, now)

  def _record(self, step: int, now: float) -> None:
    for k in range(len(self._windows)):
      self._write(k, step, now)
    self._examples, self._since = 0.0, now

  def _write(self, member: int, step: int, now: float) -> None:
    window = self._windows[member]
    if not window:
      return
    record: dict[str, Any] = {
      name: sum(values[name] for values in window) / len(window) for name in window[0]
    }
    if self._examples and self._since is not None and now > self._since:
      record['examples_per_second'] = self._examples / (now - self._since)  # of all members
    self._records[member].add(step, 'train', record)
    window.clear()


class Profile:
  """Traces steps `first + 1` to `last` into a folder. Use it as a context manager, around the loop.

  A run that is shorter than `SKIPPED + TRACED` steps has its last steps traced.
  """

  def __init__(self, folder: pathlib.Path | None, done: int, steps: int, progress: Progress):
    """Args: where to write, None for no profile; steps done before and in all; where to print."""
    self.first = max(done, min(done + SKIPPED, steps - TRACED))
    self.last = min(steps, self.first + TRACED)
    self._folder, self._progress, self._tracing = folder, progress, False

  def __enter__(self) -> 'Profile':
    return self

  def __exit__(self, *_: Any) -> None:
    if self._tracing:  # the run ends within the trace
      jax.profiler.stop_trace()

  def step(self, done: int) -> contextlib.AbstractContextManager:
    """Around the step that follows `done` others."""
    if self._folder is not None and done == self.first:
      options = jax.profiler.ProfileOptions()
      options.python_tracer_level = 0  # it slows down what it traces, and fills the file
      jax.profiler.start_trace(self._folder, profiler_options=options)
      self._tracing = True
    if not self._tracing:
      return contextlib.nullcontext()
    return jax.profiler.StepTraceAnnotation('train', step_num=done + 1)

  def stepped(self, done: int, results: Any) -> None:
    """After a step was dispatched, with what it computes."""
    if not self._tracing or done < self.last:
      return
    jax.block_until_ready(results)
    jax.profiler.stop_trace()
    self._tracing = False
    self._progress.say(
      f'Profile of steps {self.first + 1} to {self.last}: {self._folder}. To see it: pip install '
      f'xprof, then xprof --logdir {self._folder}'
    )


class Interrupt:
  """While it is entered, the first SIGTERM or SIGINT is recorded and the second has its old effect.

  Python calls its handlers only between instructions of the main thread, which may wait for a
  compiler for minutes. So a thread of its own says at once that the signal was seen, and ends the
  process at the second one unless the main thread does so within a moment.

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
    self._ends: set[int] = set()  # signals whose second one ends the process
    self._pipe: tuple[int, int] | None = None
    self._watcher: threading.Thread | None = None

  def __enter__(self) -> 'Interrupt':
    if threading.current_thread() is threading.main_thread():
      note = self._record if processes.count() == 1 else self._record_only
      self._before = {s: signal.signal(s, note) for s in SIGNALS}
      self._ends = {s for s, handler in self._before.items() if handler in ENDING}
      self._watch()
    return self

  def __exit__(self, *_) -> None:
    self._restore_handlers()
    if self._pipe is not None and self._watcher is not None:
      signal.set_wakeup_fd(-1)
      os.close(self._pipe[1])  # the watcher reads the end
      self._watcher.join()
      os.close(self._pipe[0])
      self._pipe = None

  def _watch(self) -> None:
    """Begins to read the numbers of signals, which the system writes however busy Python is."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if before != -1:  # an event loop, such as a notebook's, has it already
      signal.set_wakeup_fd(before)
      os.close(read)
      os.close(write)
      return
    self._pipe = read, write
    self._watcher = threading.Thread(target=self._acknowledge, args=(read,), daemon=True)
    self._watcher.start()

  def _acknowledge(self, read: int) -> None:
    """Says at once what a signal does."""
    seen = 0
    while number := os.read(read, 1):
      if number[0] not in SIGNALS:
        continue
      seen += 1
      if seen == 1:
        name = signal.Signals(number[0]).name
        os.write(2, f'\n{name} seen: {SEEN}\n'.encode())
      elif processes.count() == 1 and number[0] in self._ends and not self._left(read):
        os._exit(128 + number[0])

  def _left(self, read: int) -> bool:
    """Whether the main thread took the second signal and leaves this manager because of it.

    It may wait for a compiler: since before the first signal, when it knows of neither, or since
    after it, when the old handler of the second has not been called.
    """
    if self.signal is None:
      return False
    deadline = time.monotonic() + MOMENT
    while (left := deadline - time.monotonic()) > 0:
      if select.select([read], [], [], left)[0] and not os.read(read, 1):  # closed by `__exit__`
        return True
    return False

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


def _rate(rate: float) -> str:
  """Steps a second, or seconds a step where steps are long."""
  if rate <= 0:
    return '- steps/s'
  return f'{rate:.1f} steps/s' if rate >= 1 else f'{1 / rate:.1f} s/step'
