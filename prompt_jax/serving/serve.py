"""`prompt-jax serve`: prompts from files, and the server on them."""

import contextlib
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from prompt_jax.checkpoints.prompt_file import load_facts
from prompt_jax.errors import UserError
from prompt_jax.loading import BaseModel, Devices
from prompt_jax.named_prompts import below, find_prompts
from prompt_jax.serving import listening, on_ray, tuned_prompts
from prompt_jax.serving.admin import Admin
from prompt_jax.serving.asking import Limits
from prompt_jax.serving.bank import Bank
from prompt_jax.serving.jax_engine import JaxEngine
from prompt_jax.serving.tuned_prompts import TunedPrompts
from prompt_jax.serving.watch import Watched

if TYPE_CHECKING:
  from prompt_jax.serving.app import Server


def serve(
  prompt_files: Sequence[str],
  *,
  base: BaseModel,
  devices: Devices,
  names: Sequence[str] | None,
  watch: str | None,
  host: str,
  port: int,
  token_file: str | None,
  admin_token_file: str | None,
  batch_size: int,
  beams: int,
  queue: int,
  timeout: float,
  max_bytes: int,
  max_prompt_bytes: int,
  ray: bool,
  cluster: on_ray.Cluster,
) -> None:
  """Answers requests until it is told to stop (SIGTERM or SIGINT); those begun are answered.

  Args:
    prompt_files: of one model.
    base: the model.
    devices: where to compute: one device.
    names: of the prompts; None for those of the files.
    watch: a folder whose prompts are served as they come and go; None for no folder.
    host: address to listen at.
    port: of it; 0 for any that is free.
    token_file: holds what clients must know; None for any client.
    admin_token_file: holds what those must know who add and remove prompts; None for nobody.
    batch_size: most texts of a batch.
    beams: width of a beam search that requests may ask for; 1 for none.
    queue: texts that may wait.
    timeout: seconds that a request may take.
    max_bytes: of a request.
    max_prompt_bytes: of a prompt file that is added over HTTP.
    ray: whether replicas on a cluster of Ray answer.
    cluster: how many.

  Raises:
    UserError: software that is missing; a file that is missing, empty or of another model; a method
      that cannot be stacked; no prompt; an address that cannot be had.
  """
  listening.check(timeout, ('ray',) if ray else ())
  token = listening.token_of(token_file, 'token_file')
  admin = listening.token_of(admin_token_file, 'admin_token_file')
  if admin is not None and admin == token:
    raise UserError(
      'Who may ask could change prompts too: both files hold the same token. Give two.',
      ['token_file', 'admin_token_file'],
    )
  limits = Limits(batch_size, queue, timeout, max_bytes)
  make = functools.partial(
    _server, prompt_files, base, devices, names, watch, (batch_size, beams), limits, token
  )
  if ray:
    if admin is not None:
      raise UserError(
        'A request reaches one replica alone, so none can change the prompts. Put them into a '
        'folder that all replicas watch.',
        ['admin_token_file', 'watch'],
      )
    for named in find_prompts(prompt_files, names) if prompt_files or not watch else ():
      load_facts(named.file)  # what is wrong with it is told before anything begins
    on_ray.deploy(make, host, port, cluster.options(limits))
    return
  if cluster.given:
    raise UserError('They are of replicas on Ray, and have no effect without.', cluster.given)
  with listening.listen(host, port) as socket:
    listening.answer(socket, make(None if admin is None else (admin, max_prompt_bytes, timeout)))


def _server(
  prompt_files: Sequence[str],
  base: BaseModel,
  devices: Devices,
  names: Sequence[str] | None,
  watch: str | None,
  sizes: tuple[int, int],
  limits: Limits,
  token: str | None,
  admin: tuple[str, int, float] | None = None,
) -> 'Server':
  """See `serve`; `admin` is what `Admin` has beside the engine."""
  from prompt_jax.serving.app import Server

  if devices.start() is not None:
    raise UserError('The server computes on one device of one process.', ['device'])
  engine, watched = _engine(prompt_files, base, names, watch, sizes)
  return Server(engine, limits, token, None if admin is None else Admin(engine, *admin), watched)


def _engine(
  prompt_files: Sequence[str],
  base: BaseModel,
  names: Sequence[str] | None,
  folder: str | None,
  sizes: tuple[int, int],
) -> tuple[JaxEngine, Watched | None]:
  """The prompts of files and of a folder on one model; `sizes` are of a batch and of beams."""
  if folder is None:
    return JaxEngine(tuned_prompts.load(base, prompt_files, names), *sizes), None
  if not os.path.isdir(folder):
    raise UserError(f'There is no folder {folder}.', ['watch'])
  if prompt_files:
    prompts = tuned_prompts.load(base, prompt_files, names)
    served = {n.name: n.file for n in find_prompts(prompt_files, names)}
  else:
    prompts, served = TunedPrompts(Bank(_base_of(folder, base).load(None))), {}
  engine = JaxEngine(prompts, *sizes)
  watched = Watched(folder, engine, served)
  watched.look(at_once=True)
  return engine, watched


def _base_of(folder: str, base: BaseModel) -> BaseModel:
  """The model of the first prompt in a folder that can be read."""
  if base.model is not None:
    return base
  for path in below(pathlib.Path(folder)):
    with contextlib.suppress(UserError):
      return base.of_prompt(load_facts(path).metadata)
  raise UserError(f'There is no prompt in {folder} yet. Give the model.', ['model'])
