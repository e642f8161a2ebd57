"""`prompt-jax serve FOLDER --engine ctranslate2`: an export and the server on it. Without JAX."""

from collections.abc import Sequence

from prompt_jax.errors import UserError
from prompt_jax.serving import listening
from prompt_jax.serving.asking import Limits
from prompt_jax.serving.ctranslate2_engine import CTranslate2Engine

# What can be set; the rest is of the model, which the folder has.
SETTINGS = ('host', 'port', 'token_file', 'batch_size', 'beams', 'queue', 'timeout', 'max_bytes')


def serve(
  folders: Sequence[str],
  *,
  host: str,
  port: int,
  token_file: str | None,
  batch_size: int,
  beams: int,
  queue: int,
  timeout: float,
  max_bytes: int,
) -> None:
  """Answers requests until it is told to stop; arguments as in `serve.serve`.

  Args:
    folders: one, that `export` wrote for ctranslate2.
    host: this and what follows: see `serve.serve`.
    port: see `host`.
    token_file: see `host`.
    batch_size: see `host`.
    beams: see `host`.
    queue: see `host`.
    timeout: see `host`.
    max_bytes: see `host`.

  Raises:
    UserError: see `serve.serve`; no such folder, or not one.
  """
  listening.check(timeout, ('ctranslate2',))
  if len(folders) != 1:
    raise UserError(f'There are {len(folders)} folders; CTranslate2 serves one, with all prompts.')
  from prompt_jax.serving.app import Server

  token = listening.token_of(token_file, 'token_file')
  with listening.listen(host, port) as socket:
    engine = CTranslate2Engine(folders[0], beams)
    limits = Limits(batch_size, queue, timeout, max_bytes)
    listening.answer(socket, Server(engine, limits, token))
