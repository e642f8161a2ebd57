"""Batches made and put on the device by a thread, so that input is off the step's path."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax

from prompt_jax.batch import Batch

Position = dict[str, Any]


class Stream(Protocol):
  """Where batches come from: iterating gives NumPy batches, for ever or until the data end."""

  @property
  def position(self) -> Position:
    """A few integers that say which batch comes next. It moves on as batches are taken."""
    ...

  def restore(self, position: Position) -> None:
    """The next batch is the one that came next when `position` was read."""

  def __iter__(self) -> Iterator[Batch]: ...


class Source(Protocol):
  """What is prefetched: a `Stream`, or several as one, whose batches are tuples."""

  @property
  def position(self) -> Position: ...
  def __iter__(self) -> Iterator[Any]: ...


class Prefetch:
  """Iterates over (batch on the device, position after that batch), a few batches ahead.

  The stream itself is ahead of the consumer, so only the position given with a batch may be saved
  with the step that used it. Use it as a context manager, which stops the thread.
  """

  def __init__(self, stream: Source, ahead: int = 2, put: Callable[[Any], Any] = jax.device_put):
    """Args: of batches; how many to make ahead; how one is put on the device."""
    self._stream = stream
    self._put_on_device = put
    self._queue: queue.Queue = queue.Queue(maxsize=ahead)
    self._stop = threading.Event()
    self._thread = threading.Thread(target=self._fill, name='prefetch', daemon=True)

  def __enter__(self) -> 'Prefetch':
    self._thread.start()
    return self

  def __exit__(self, *_) -> None:
    self._stop.set()
    self._thread.join()

  def __iter__(self) -> Iterator[tuple[Any, Position]]:
    while True:
      batch, position, error = self._queue.get()
      if error is not None:
        raise error
      if batch is None:
        return
      yield batch, position

  def _fill(self) -> None:
    try:
      batches = iter(self._stream)
      while True:
        with jax.profiler.TraceAnnotation('input'):
          batch = next(batches, None)
          position = dict(self._stream.position)
          placed = self._put_on_device(batch)
        if not self._put((placed, position, None)) or batch is None:
          return
    except BaseException as e:  # It is raised where batches are taken.
      self._put((None, None, e))

  def _put(self, item: tuple) -> bool:
    """Puts an item unless the consumer has left; a plain `put` would then wait for ever."""
    while not self._stop.is_set():
      try:
        self._queue.put(item, timeout=0.1)
      except queue.Full:
        continue
      return True
    return False
