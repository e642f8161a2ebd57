"""Requests of many clients in batches that mix prompts: what waits while a batch runs is the next.

One thread computes; everything else is of the event loop. A batch is the oldest row that waits and
those behind it that the same program can answer, whatever their prompts.
"""

import asyncio
import collections
import concurrent.futures
import dataclasses
import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from prompt_jax.serving.measures import Measures
from prompt_jax.serving.rows import Found, Row, Settings, Tell

Answer = Callable[[Sequence[Row], Settings, Tell | None], list[Found | None]]
Told = Callable[[int], None]


class Full(Exception):
  """The queue has no room; `seconds` is when to come again."""

  def __init__(self, seconds: int):
    super().__init__(f'try again in {seconds} s')
    self.seconds = seconds


@dataclasses.dataclass(eq=False)
class Waiting:
  """A row that waits.

  Attributes:
    row: the text.
    settings: how it is answered.
    group: rows of one are one batch.
    found: its answer to come; whoever no longer waits cancels it.
    told: called in the event loop with each token, of rows that are streamed.
    since: when it came, by the clock of `time.monotonic`.
  """

  row: Row
  settings: Settings
  group: Hashable
  found: asyncio.Future[Found | None]
  told: Told | None
  since: float


class Queue:
  """Rows that wait, and the loop that answers them."""

  def __init__(self, answer: Answer, measures: Measures, most_rows: int, room: int):
    """Begins empty.

    Args:
      answer: computes a batch; called from one thread.
      measures: what is counted.
      most_rows: of a batch.
      room: rows that may wait.
    """
    self._answer, self._measures = answer, measures
    self._most_rows, self._room = most_rows, room
    self._waiting: collections.deque[Waiting] = collections.deque()
    self._some = asyncio.Event()
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'answers')
    self._seconds_of_row = 0.1  # a moving mean
    self._closing = False

  def __len__(self) -> int:
    return len(self._waiting)

  def put(
    self,
    rows: Sequence[Row],
    settings: Settings,
    groups: Sequence[Hashable],
    told: Sequence[Told | None] | None = None,
  ) -> list[Any]:
    """Lines up the rows of one request and returns a future for each.

    Args:
      rows: of the request.
      settings: of all of them.
      groups: of each; see `Waiting`.
      told: of each, if they are streamed; see `Waiting`.

    Raises:
      Full: there is no room for all of them.
    """
    self._drop()
    if len(self._waiting) + len(rows) > self._room:
      raise Full(max(1, math.ceil(len(self._waiting) * self._seconds_of_row)))
    loop, now = asyncio.get_running_loop(), time.monotonic()
    new = [
      Waiting(row, settings, group, loop.create_future(), tell, now)
      for row, group, tell in zip(rows, groups, told or [None] * len(rows), strict=True)
    ]
    self._waiting += new
    self._measures.waiting = len(self._waiting)
    self._some.set()
    return [each.found for each in new]

  async def run(self) -> None:
    """Answers until `close` is called and nothing waits."""
    loop = asyncio.get_running_loop()
    while True:
      self._drop()
      if not self._waiting:
        if self._closing:
          self._thread.shutdown()
          return
        self._some.clear()
        await self._some.wait()
        continue
      batch = self._next()
      rows, began = [each.row for each in batch], time.monotonic()
      self._measures.waited(began - each.since for each in batch)
      settings = batch[0].settings
      tell = _teller(batch, loop) if settings.streamed else None
      try:
        found = await loop.run_in_executor(self._thread, self._answer, rows, settings, tell)
      except Exception as error:  # of one batch: the others go on
        for each in batch:
          if not each.found.done():
            each.found.set_exception(error)
        continue
      spent = time.monotonic() - began
      self._seconds_of_row += 0.1 * (spent / len(batch) - self._seconds_of_row)
      self._measures.batch([row.prompt for row in rows], spent)
      for each, answer in zip(batch, found, strict=True):
        if not each.found.done():
          each.found.set_result(answer)

  def close(self) -> None:
    """Lets `run` end once all that waits is answered."""
    self._closing = True
    self._some.set()

  def _next(self) -> list[Waiting]:
    """Takes the next batch out."""
    first = self._waiting[0]
    key = lambda each: (each.settings, each.group)
    batch = [each for each in self._waiting if key(each) == key(first)][: self._most_rows]
    taken = set(map(id, batch))
    self._waiting = collections.deque(w for w in self._waiting if id(w) not in taken)
    self._measures.waiting = len(self._waiting)
    return batch

  def _drop(self) -> None:
    """Forgets what nobody waits for any more."""
    self._waiting = collections.deque(w for w in self._waiting if not w.found.done())
    self._measures.waiting = len(self._waiting)


def _teller(batch: Sequence[Waiting], loop: asyncio.AbstractEventLoop) -> Tell:
  """Tells the rows of a batch their tokens, from the thread that computes."""

  def tell(row: int, step: int, token: int) -> None:
    del step
    told = batch[row].told
    if told is not None:
      loop.call_soon_threadsafe(told, token)

  return tell
