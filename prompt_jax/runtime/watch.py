"""Notices that another process of a run is gone, whichever it is and however it went.

The processes of a run meet at a service of JAX in the first one. When that is gone, JAX aborts the
others at once, and no handler of ours is asked. So its connections go through a relay at either
end (`relay`), JAX sees none of them break, and the process ends in words of ours.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from typing import NoReturn

from prompt_jax.errors import UserError
from prompt_jax.runtime import relay

# Seconds from one sign of life to the next, and without any until a process counts as lost: more
# than an import or a loaded machine keeps this thread from running, and less than a minute.
BEAT = 5
SILENCE = 40
# Seconds that a process has, after another was lost, to notice it in a computation and to finish a
# state that it is saving.
SAVING = 10


class Watch:
  """The relay of this process, from here on until `close`.

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
    self._words = words
    self._last = threading.Lock()
    self._closing = threading.Event()
    self._folder = tempfile.TemporaryDirectory()
    path = str(pathlib.Path(self._folder.name) / 'jax')
    self.address = f'unix:{path}'
    role, beats = 'first' if first else 'other', str(round(SILENCE / BEAT))
    self._relay = subprocess.Popen(
      [sys.executable, '-I', relay.__file__, host.strip('[]'), port, path, role, beats],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      start_new_session=True,  # not to be stopped with the terminal's or the job's processes
    )
    assert self._relay.stdout
    said, _, why = self._relay.stdout.readline().strip().partition(' ')
    if said != 'ready':
      self.close()
      raise UserError(
        f'The first process cannot listen at port {port} ({why or "its relay ended"}). Give '
        '--coordinator with a port that is free, the same in every process.'
      )
    for function in (self._beat, self._hear):
      threading.Thread(target=function, name='watch', daemon=True).start()

  def connected(self) -> None:
    """Removes the way in, once JAX has come that way."""
    self._folder.cleanup()

  def close(self) -> None:
    """Says farewell to the others, once JAX was shut down."""
    self._closing.set()
    self._tell('q')
    self._relay.wait()
    self._folder.cleanup()

  def end(self, words: object, code: int = 2) -> NoReturn:
    """Ends the process with a line, whatever its other threads are in."""
    self._last.acquire()  # for ever: one line is enough
    os.write(2, f'prompt-jax: {words}\n'.encode())
    os._exit(code)

  def _tell(self, sign: str) -> None:
    assert self._relay.stdin
    try:
      self._relay.stdin.write(sign)
      self._relay.stdin.flush()
    except BrokenPipeError:
      pass  # `_hear` knows too

  def _beat(self) -> None:
    while not self._closing.wait(BEAT):
      self._tell('.')

  def _hear(self) -> None:
    assert self._relay.stdout
    said = self._relay.stdout.readline()
    if self._closing.is_set():
      return
    why = said.strip().removeprefix('lost ') or 'the relay of this one ended'
    if not self._closing.wait(SAVING):
      self.end(self._words(why))
