"""Where batches come from, several streams as one, and a thread that puts them on the device."""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

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

  def upcoming_shapes(self, count: int) -> list[Batch]:
    """A batch of each shape among the next `count`, in the order in which they come, so that the
    step is compiled for them ahead of time; none where they are not known."""
    ...

  def __iter__(self) -> Iterator[Batch]: ...


class Streams:
  """Several streams as one, whose batches are tuples with one batch of each."""

  def __init__(self, streams: Mapping[str, Stream]):
    self._streams = streams

  @property
  def position(self) -> Position:
    return {name: dict(stream.position) for name, stream in self._streams.items()}

  def restore(self, position: Position) -> None:
    for name, stream in self._streams.items():
      stream.restore(position[name])

  def upcoming_shapes(self, count: int) -> list[tuple[Batch, ...]]:
    """As `Stream.upcoming_shapes`; none where the streams differ in them."""
    known = [stream.upcoming_shapes(count) for stream in self._streams.values()]
    shapes = {
      tuple(tuple(map(np.shape, jax.tree.leaves(batch))) for batch in upcoming)
      for upcoming in known
    }
    return list(zip(*known, strict=True)) if len(shapes) == 1 else []

  def __iter__(self) -> Iterator[tuple[Batch, ...]]:
    for batches in zip(*self._streams.values(), strict=False):  # until one of them ends
      yield pad_to_widest(batches)


def pad_to_widest(batches: Sequence[Batch]) -> tuple[Batch, ...]:
  """Batches of NumPy arrays padded to the longest inputs and the longest targets among them.

  Streams of one task give batches of one width at every step, whatever their seeds, so that this
  pads between tasks only. It changes no loss but a normalisation by "all_tokens".
  """
  widths = {
    'encoder': max(b.encoder_input_tokens.shape[1] for b in batches),
    'decoder': max(b.decoder_target_tokens.shape[1] for b in batches),
  }
  return tuple(_pad(batch, widths) for batch in batches)


def _pad(batch: Batch, widths: Mapping[str, int]) -> Batch:
  def pad(name: str, value: Any) -> Any:
    stack = 'encoder' if name == 'prompt_slot' else name.split('_')[0]
    if value is None or stack not in widths or value.shape[1] == widths[stack]:
      return value
    more = widths[stack] - value.shape[1]
    fill = -1 if name.endswith('prompt_slot') else 0  # 0 is a row of the prompt
    return np.pad(value, ((0, 0), (0, more)), constant_values=fill)

  return Batch(**{name: pad(name, value) for name, value in vars(batch).items()})


class Prefetch:
  """Iterates over (batches on the device, position after them), a few steps ahead.

  The stream itself is ahead of the consumer, so only the position given with a batch may be saved
  with the step that used it. Use it as a context manager, which stops the thread.
  """

  def __init__(
    self,
    stream: Stream | Streams,
    ahead: int = 2,
    put: Callable[[Any], Any] = jax.device_put,
  ):
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
