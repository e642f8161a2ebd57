"""A trace of a few steps in the middle of a run, by JAX's profiler."""

import contextlib
import pathlib
from typing import Any

import jax

from prompt_jax.training.progress import Progress

# Steps before the trace, in which programs of all widths are compiled and caches fill.
SKIPPED = 20
TRACED = 5


class Profile:
  """Traces steps `first + 1` to `last` into a folder. Use it as a context manager, around the loop.

  A run that is shorter than `SKIPPED + TRACED` steps has its last steps traced.
  """

  def __init__(self, on: bool, folder: pathlib.Path, done: int, steps: int, progress: Progress):
    """Args: whether at all, where to write, steps done before and in all, and where to tell."""
    self._on = on
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
    if self._on and done == self.first:
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
