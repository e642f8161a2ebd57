"""A server on a socket, until a signal; its software and its tokens. Whatever the engine."""

import importlib.util
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING

from prompt_jax.errors import UserError, install

if TYPE_CHECKING:
  from prompt_jax.serving.app import Server

FORMAT = 'prompt-jax: %(message)s'  # of what is logged
BACKLOG = 2048  # connections that may wait


def check(timeout: float, packages: tuple[str, ...] = ()) -> None:
  """Refuses to begin without the software of a server, or without time.

  Raises:
    UserError: it does.
  """
  needs = ('starlette', 'uvicorn')
  missing = [name for name in (*needs, *packages) if importlib.util.find_spec(name) is None]
  if missing:
    extra = 'serve' if missing[0] in needs else missing[0]
    raise UserError(f'The server needs {" and ".join(missing)}. Install it, {install(extra)}')
  if timeout <= 0:
    raise UserError(f'timeout is {timeout}; expected seconds above 0.', ['timeout'])


def answer(listening: socket.socket, server: 'Server') -> None:
  """Answers until a signal."""
  import uvicorn

  listening.listen(BACKLOG)  # who reads the address may connect at once
  host, port = listening.getsockname()[:2]
  host = f'[{host}]' if ':' in host else host
  print(f'prompt-jax: {len(server.engine.names)} prompts at http://{host}:{port}', flush=True)
  config = uvicorn.Config(server.app, log_level='warning', access_log=False, backlog=BACKLOG)
  # uvicorn raises the signal again once it has ended, which is no failure.
  signal.signal(signal.SIGTERM, lambda *_: None)
  uvicorn.Server(config).run(sockets=[listening])


def token_of(path: str | None, parameter: str) -> str | None:
  """The token in a file; None without a file.

  Raises:
    UserError: there is no such file, or no token in it.
  """
  if path is None:
    return None
  if not os.path.isfile(path):
    raise UserError(f'There is no token file {path}.', [parameter])
  with open(path, encoding='utf-8') as file:
    token = file.read().strip()
  if not token or not token.isascii() or any(c.isspace() for c in token):
    raise UserError(f'{path} holds no token: one line of ASCII without spaces.', [parameter])
  return token


def listen(host: str, port: int) -> socket.socket:
  """A socket at the address, before a model is loaded.

  Raises:
    UserError: it cannot be had.
  """
  logging.basicConfig(level=logging.INFO, format=FORMAT)
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  listening = socket.socket(family)
  listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    listening.bind((host, port))
  except (OSError, OverflowError) as e:
    listening.close()
    raise UserError(f'{host}:{port} cannot be had: {e}. Give another.', ['host', 'port']) from None
  return listening
