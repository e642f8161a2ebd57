"""`prompt-jax serve --ray`: the application in replicas on a cluster of Ray, behind its proxies."""

import contextlib
import dataclasses
import importlib
import logging
import os
import re
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prompt_jax.errors import UserError
from prompt_jax.serving import listening
from prompt_jax.serving.asking import Limits

if TYPE_CHECKING:
  from prompt_jax.serving.app import Server

NAME = 'prompt_jax'  # of the application
TRIES = 3  # of a replica to begin
QUIET = {'log_level': 'WARNING', 'enable_access_log': False}


@dataclasses.dataclass(frozen=True)
class Cluster:
  """How many replicas there are, and what each takes of a machine.

  Attributes:
    replicas: "2", or "1-4" for as many as there is work for; None for one.
    replica_cpus: of a replica; None for one.
    replica_gpus: of a replica; None for none.
  """

  replicas: str | None
  replica_cpus: float | None
  replica_gpus: float | None

  @property
  def given(self) -> list[str]:
    """The names of what is set."""
    return [name for name, value in dataclasses.asdict(self).items() if value is not None]

  def options(self, limits: Limits) -> dict[str, Any]:
    """Them as Ray Serve takes them; a full batch keeps a replica busy.

    Raises:
      UserError: no such numbers.
    """
    found = re.fullmatch(r'(\d{1,6})(?:-(\d{1,6}))?', self.replicas or '1')
    least, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= least <= most:
      raise UserError(
        f'replicas is {self.replicas!r}; expected a number, or two such as 1-4.', ['replicas']
      )
    cpus = 1.0 if self.replica_cpus is None else self.replica_cpus
    gpus = self.replica_gpus or 0.0
    for name, value in (('replica_cpus', cpus), ('replica_gpus', gpus)):
      if value < 0:
        raise UserError(f'{name} is {value:g}; expected 0 or more.', [name])
    always = {
      'ray_actor_options': {'num_cpus': cpus, 'num_gpus': gpus},
      'max_ongoing_requests': limits.waiting,
      'max_queued_requests': limits.waiting,
      'graceful_shutdown_timeout_s': limits.seconds,
      'max_constructor_retry_count': TRIES,
    }
    if most == least:
      return always | {'num_replicas': least}
    scaling = {'min_replicas': least, 'max_replicas': most, 'target_ongoing_requests': limits.rows}
    return always | {'autoscaling_config': scaling}


class Replica:
  """One application: Ray sends it requests once every program is compiled, and replaces it if it
  fails."""

  def __init__(self, make: Callable[[], 'Server'], folder: str):
    """Makes it; relative paths are of `folder`, where this machine has it."""
    with contextlib.suppress(FileNotFoundError):
      os.chdir(folder)
    logging.basicConfig(level=logging.INFO, format=listening.FORMAT)
    self._server = make()
    for program in self._server.engine.programs():
      program()

  def __serve_build_asgi_app__(self) -> Any:
    return self._server.app

  def check_health(self) -> None:
    """Asked by Ray, again and again; raises if nothing is answered any more."""
    if self._server.failed:
      raise RuntimeError('The replica answers nothing any more; see its log.')


def deploy(make: Callable[[], 'Server'], host: str, port: int, options: dict[str, Any]) -> None:
  """Answers until a signal; then the application is taken out, once what it has begun is answered.

  The cluster is the one that runs here or at RAY_ADDRESS; where there is none, one is begun on this
  machine for as long.

  Args:
    make: makes what a replica runs; there.
    host: address at which every machine of the cluster listens.
    port: of it.
    options: of a replica, see `Cluster.options`, and what else Ray takes.

  Raises:
    UserError: no port; the cluster has another application there, or its replicas do not begin.
  """
  if not port:
    raise UserError('All machines of a cluster listen at one port; give it.', ['port'])
  os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
  ray, serve = importlib.import_module('ray'), importlib.import_module('ray.serve')
  ray.init(logging_level=logging.WARNING, log_to_driver=False)
  logging.getLogger('ray.serve').setLevel(logging.WARNING)
  try:
    serve.start(
      proxy_location='EveryNode', http_options={'host': host, 'port': port}, logging_config=QUIET
    )
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):  # Ray has set its own
      signal.signal(number, lambda *_: stop.set())
    replica = serve.deployment(name='server', logging_config=QUIET, **options)
    try:
      serve.run(replica(serve.ingress()(Replica)).bind(make, os.getcwd()), name=NAME)
    except Exception as error:
      raise UserError(_why(serve, error)) from None
    print(f'prompt-jax: on Ray at http://{host}:{port}', flush=True)
    stop.wait()
  finally:
    serve.delete(NAME)
    ray.shutdown()


def _why(serve: Any, error: Exception) -> str:
  """One line; what a user can mend stands at the end of what Ray tells of its replicas."""
  about = serve.status().applications.get(NAME)
  told = '\n'.join([str(error), *(d.message for d in about.deployments.values())] if about else [])
  own = re.findall(r'UserError: (.+)', told)
  return own[-1] if own else f'Ray could not begin the replicas: {" ".join(told.split())[-500:]}'
