"""Notices that another process of a run is gone, whichever it is and however it went.

The processes of a run meet at a service of JAX in the first one. When that is gone, JAX aborts the
others at once, and no handler of ours is asked. So its connections go through a relay at either
end, and JAX sees none of them break:

    JAX in process i -- relay of i ==== TCP ==== relay of the first process -- service of JAX

What travels between relays, after a greeting, is framed: four bytes with a length, and as many
bytes. Besides, each sends a sign of life every few seconds, and a farewell before it closes in
order. A connection that ends without a farewell, or falls silent, means that a process was lost.
"""

import asyncio
import contextlib
import os
import pathlib
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from prompt_jax.errors import UserError

# Seconds from one sign of life to the next, and without any until a process counts as lost: more
# than a loaded machine or an import needs that lets no other thread run, and less than a minute.
BEAT = 5
SILENCE = 40
# Seconds that a process has, after another was lost, to notice it in a computation and to finish a
# state that it is saving.
SAVING = 10
# Seconds that JAX has to close its connections after it was shut down.
CLOSING = 2

GREETING = b'prompt_jax relay 1\n'
ALIVE = (0).to_bytes(4)
FAREWELL = b'\xff' * 4

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Watch:
  """The relay of one process, in a thread of its own from here on until `close`.

  Attributes:
    address: where JAX is to meet in this process: of its service in the first one, elsewhere of
      the relay. A Unix socket, which is no one else's.
  """

  def __init__(self, where: str, first: bool, words: Callable[[str], object]):
    """Begins to listen.

    Args:
      where: "HOST:PORT" of the first process, at which its relay listens.
      first: whether this is it.
      words: from what happened to the line with which this process ends when another was lost.

    Raises:
      UserError: the port is not free.
    """
    host, _, port = where.rpartition(':')
    self._host, self._port = host.strip('[]'), int(port)
    self._first = first
    self._words = words
    self._last = threading.Lock()
    self._folder = tempfile.TemporaryDirectory()
    self._path = str(pathlib.Path(self._folder.name) / 'jax')
    self.address = f'unix:{self._path}'
    self._links: set[asyncio.Task[None] | None] = set()
    self._loop = asyncio.new_event_loop()
    threading.Thread(target=self._loop.run_forever, name='watch', daemon=True).start()
    try:
      self._wait_for(self._listen())
    except OSError as e:
      raise UserError(
        f'The first process cannot listen at port {port} ({e.strerror}). Give --coordinator with '
        'a port that is free, the same in every process.'
      ) from None

  def connected(self) -> None:
    """Removes the way in, once JAX has come that way."""
    self._folder.cleanup()

  def close(self) -> None:
    """Says farewell to the others; once JAX was shut down, or to end without being missed."""
    self._wait_for(self._close())
    self._loop.call_soon_threadsafe(self._loop.stop)

  def end(self, words: object) -> NoReturn:
    """Ends the process with code 2 and a line, whatever its other threads are in."""
    self._last.acquire()  # for ever: one line is enough
    os.write(2, f'prompt-jax: {words}\n'.encode())
    os._exit(2)

  def _wait_for(self, coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

  async def _listen(self) -> None:
    if self._first:
      await asyncio.start_server(self._relay, None, self._port)
    else:
      await asyncio.start_unix_server(self._relay, self._path)

  async def _close(self) -> None:
    links = [link for link in self._links if link]
    if links:
      _, open_ = await asyncio.wait(links, timeout=CLOSING)
      for link in open_:
        link.cancel()
      await asyncio.wait(links)

  async def _relay(self, *accepted: Any) -> None:
    """One connection, from its beginning to its end."""
    self._links.add(asyncio.current_task())
    try:
      far, near = await self._both(accepted)
    except (EOFError, OSError):  # the first process is not there yet, or a stranger knocks
      await _leave(accepted)
      return
    link = _Link(far, near)
    tasks = [asyncio.create_task(c) for c in (link.send(), link.receive(), link.beat())]
    try:
      await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
      if not tasks[0].done():  # it was not this process that closed it
        for task in tasks:
          if task.done():
            task.result()
    except (EOFError, OSError) as e:
      what = e if isinstance(e, TimeoutError) else 'the connection ended'
      time.sleep(SAVING)  # nor does anything reach JAX meanwhile
      self.end(self._words(f'{link.name}: {what}'))
    finally:
      for task in tasks:
        task.cancel()
      await asyncio.gather(*tasks, return_exceptions=True)
      far[1].write(FAREWELL)
      await _leave(far, near)

  async def _both(self, accepted: Ends) -> tuple[Ends, Ends]:
    """(to the other relay, to JAX here). Raises EOFError or OSError if one of them is not there."""
    if self._first:
      await _greeted(accepted)
      near = await asyncio.open_unix_connection(self._path)
      accepted[1].write(GREETING)
      return accepted, near
    far = await asyncio.open_connection(self._host, self._port)
    far[1].write(GREETING)
    await _greeted(far)
    return far, accepted


class _Link:
  """Two connections that are one: to the relay of another process, and to JAX in this one.

  Writing waits for nobody: what JAX sends this way is little.
  """

  def __init__(self, far: Ends, near: Ends):
    self._far, self._near = far, near
    self._beats = 0  # since the other one was heard
    self.name = far[1].get_extra_info('peername')[0]

  async def send(self) -> None:
    """Until JAX closes its end."""
    with contextlib.suppress(OSError):
      while data := await self._near[0].read(2**16):
        self._far[1].write(len(data).to_bytes(4) + data)

  async def receive(self) -> None:
    """Until the other relay says farewell. Raises EOFError or OSError if it ends otherwise."""
    reader = self._far[0]
    while (size := await reader.readexactly(4)) != FAREWELL:
      self._near[1].write(await reader.readexactly(int.from_bytes(size)))
      self._beats = 0

  async def beat(self) -> None:
    """Raises TimeoutError if the other one is silent.

    Counted in beats of this process: one that was stopped itself does not blame the others.
    """
    while self._beats * BEAT < SILENCE:
      self._far[1].write(ALIVE)
      await asyncio.sleep(BEAT)
      self._beats += 1
    raise TimeoutError(f'no sign of life for {SILENCE} seconds')


async def _greeted(far: Ends) -> None:
  if await far[0].readexactly(len(GREETING)) != GREETING:
    raise ConnectionError('no relay of ours')


async def _leave(*ends: Ends) -> None:
  for _, writer in ends:
    writer.close()
    with contextlib.suppress(OSError):
      await writer.wait_closed()
