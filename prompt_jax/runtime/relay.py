"""A process beside each process of a run, through which JAX's connections to the first one go.

    JAX in process i -- relay of i ==== TCP ==== relay of the first process -- service of JAX

`watch` says what for, starts it, and hears from it. It is a program of its own, because JAX waits
for its service in calls in which no other thread of Python runs; of nothing but Python's library,
to start at once.

What travels between relays, after a greeting, is framed: four bytes with a length, and as many
bytes. Besides, each sends a sign of life when its process did, and a farewell before it closes in
order. A connection that ends without a farewell, or falls silent, means that a process was lost.

    python relay.py HOST PORT SOCKET FIRST BEATS

listens at SOCKET and goes on to HOST:PORT, or for the first process (FIRST is "first") the other
way round. It reads "." for every beat of its process and "q" to take leave, and prints "ready", or
"taken REASON", and then "lost REASON" for a connection, also after so many BEATS of silence.
"""

import asyncio
import contextlib
import os
import signal
import sys
from typing import Any

GREETING = b'prompt_jax relay 1\n'
ALIVE = (0).to_bytes(4)
FAREWELL = b'\xff' * 4
# Seconds in which it shows whether JAX closed a connection, or its process is gone with it.
GONE = 1
# Seconds that JAX has to close its connections after it was shut down.
CLOSING = 2

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Link:
  """Two connections that are one: `far` to the relay of another process, `near` to JAX in ours.

  Writing waits for nobody: what JAX sends this way is little.
  """

  def __init__(self, far: Ends, near: Ends):
    self._far, self._near = far, near
    self._beats = 0  # of ours, since the other one was heard
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

  def beat(self) -> int:
    """Sends a sign of life. Returns how many were sent since the other one's last.

    In beats, because a process that was stopped itself must not blame the others.
    """
    self._far[1].write(ALIVE)
    self._beats += 1
    return self._beats


class Relay:
  """All connections of one process. Arguments: see the head of this file."""

  def __init__(self, host: str, port: str, path: str, first: str, beats: str):
    self._host, self._port, self._path = host, int(port), path
    self._first = first == 'first'
    self._most = int(beats)
    self._tasks: set[Any] = set()
    self._links: set[Link] = set()
    self._leaving = asyncio.Event()

  async def run(self) -> None:
    """Until the process says that it takes leave, or is gone itself."""
    try:
      if self._first:
        await asyncio.start_server(self._relay, None, self._port)
      else:
        await asyncio.start_unix_server(self._relay, self._path)
    except OSError as e:
      print('taken', e.strerror, flush=True)
      return
    asyncio.get_running_loop().add_reader(0, self._listen)
    print('ready', flush=True)
    await self._leaving.wait()
    if self._tasks:
      _, open_ = await asyncio.wait(self._tasks, timeout=CLOSING)
      for task in open_:
        task.cancel()
      await asyncio.wait(self._tasks)

  def _listen(self) -> None:
    said = os.read(0, 64)
    if not said:
      os._exit(1)  # the process is gone, and without a farewell the others are told
    if b'q' in said:
      self._leaving.set()
    for link in list(self._links):
      if link.beat() > self._most:
        self._lost(link, 'no sign of life')

  def _lost(self, link: Link, why: str) -> None:
    """JAX's end stays open: it would abort the process at once."""
    self._links.discard(link)
    print(f'lost {link.name}: {why}', flush=True)

  async def _relay(self, *accepted: Any) -> None:
    """One connection, from its beginning to its end."""
    self._tasks.add(asyncio.current_task())
    try:
      far, near = await self._both(accepted)
    except (EOFError, OSError):  # the first process is not there yet, or a stranger knocks
      await _leave(accepted)
      return
    link = Link(far, near)
    self._links.add(link)
    ways = [asyncio.create_task(way) for way in (link.send(), link.receive())]
    try:
      await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
      if not ways[0].done() and ways[1].exception():
        self._lost(link, 'the connection ended')
        await asyncio.Event().wait()
      with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(self._leaving.wait(), GONE)
    finally:
      self._links.discard(link)
      for way in ways:
        way.cancel()
      await asyncio.gather(*ways, return_exceptions=True)
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


async def _greeted(far: Ends) -> None:
  if await far[0].readexactly(len(GREETING)) != GREETING:
    raise ConnectionError('no relay of ours')


async def _leave(*ends: Ends) -> None:
  for _, writer in ends:
    writer.close()
    with contextlib.suppress(OSError):
      await writer.wait_closed()


if __name__ == '__main__':
  for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)  # they are for the process, which says when to leave
  asyncio.run(Relay(*sys.argv[1:]).run())
