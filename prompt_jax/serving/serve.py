"""`prompt-jax serve`: prompts from files, and the server on them."""

import importlib.util
import logging
import os
import signal
import socket
from collections.abc import Sequence

from prompt_jax.errors import UserError, install
from prompt_jax.loading import BaseModel, Devices
from prompt_jax.serving import tuned_prompts
from prompt_jax.serving.engine import Engine
from prompt_jax.serving.jax_engine import JaxEngine

BACKLOG = 2048  # connections that may wait


def serve(
  prompt_files: Sequence[str],
  *,
  base: BaseModel,
  devices: Devices,
  names: Sequence[str] | None,
  host: str,
  port: int,
  token_file: str | None,
  batch_size: int,
  queue: int,
  timeout: float,
  max_bytes: int,
) -> None:
  """Answers requests until it is told to stop (SIGTERM or SIGINT); those begun are answered.

  Args:
    prompt_files: of one model.
    base: the model.
    devices: where to compute: one device.
    names: of the prompts; None for those of the files.
    host: address to listen at.
    port: of it; 0 for any that is free.
    token_file: holds what clients must know; None for any client.
    batch_size: most texts of a batch.
    queue: texts that may wait.
    timeout: seconds that a request may take.
    max_bytes: of a request.

  Raises:
    UserError: software that is missing; a file that is missing, empty or of another model; a method
      that cannot be stacked; an address that cannot be had.
  """
  missing = [name for name in ('starlette', 'uvicorn') if importlib.util.find_spec(name) is None]
  if missing:
    raise UserError(f'The server needs {" and ".join(missing)}. Install it, {install("serve")}')
  if timeout <= 0:
    raise UserError(f'timeout is {timeout}; expected seconds above 0.', ['timeout'])
  token = None if token_file is None else _token(token_file)
  with _listen(host, port) as listening:
    if devices.start() is not None:
      raise UserError('The server computes on one device of one process.', ['device'])
    prompts = tuned_prompts.load(base, prompt_files, names)
    _answer(listening, JaxEngine(prompts, batch_size), batch_size, queue, timeout, max_bytes, token)


def _answer(
  listening: socket.socket,
  engine: Engine,
  batch_size: int,
  queue: int,
  timeout: float,
  max_bytes: int,
  token: str | None,
) -> None:
  """Runs until a signal."""
  import uvicorn

  from prompt_jax.serving.app import Server
  from prompt_jax.serving.asking import Limits

  logging.basicConfig(level=logging.INFO, format='prompt-jax: %(message)s')
  server = Server(engine, Limits(batch_size, queue, timeout, max_bytes), token)
  listening.listen(BACKLOG)  # who reads the address may connect at once
  host, port = listening.getsockname()[:2]
  host = f'[{host}]' if ':' in host else host
  print(f'prompt-jax: {len(engine.names)} prompts at http://{host}:{port}', flush=True)
  config = uvicorn.Config(server.app, log_level='warning', access_log=False, backlog=BACKLOG)
  # uvicorn raises the signal again once it has ended, which is no failure.
  signal.signal(signal.SIGTERM, lambda *_: None)
  uvicorn.Server(config).run(sockets=[listening])


def _token(path: str) -> str:
  if not os.path.isfile(path):
    raise UserError(f'There is no token file {path}.', ['token_file'])
  with open(path, encoding='utf-8') as file:
    token = file.read().strip()
  if not token or not token.isascii() or any(c.isspace() for c in token):
    raise UserError(f'{path} holds no token: one line of ASCII without spaces.', ['token_file'])
  return token


def _listen(host: str, port: int) -> socket.socket:
  """A socket at the address, before a model is loaded."""
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  listening = socket.socket(family)
  listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
  try:
    listening.bind((host, port))
  except (OSError, OverflowError) as e:
    listening.close()
    raise UserError(f'{host}:{port} cannot be had: {e}. Give another.', ['host', 'port']) from None
  return listening
