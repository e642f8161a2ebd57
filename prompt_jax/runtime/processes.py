"""Several processes that compute as one run, each with the devices of its host.

Every process runs the same program on the same values. Process 0 alone writes files and prints;
what only it can know (a saved state, a file that it wrote) it broadcasts to the others.

JAX watches over the processes: it ends all of them when one is lost, and the run resumes from its
last saved state.

Also whether the console of a process can draw progress bars, and how they tell the end.
"""

import atexit
import contextlib
import datetime
import errno
import importlib.util
import os
import pickle
import re
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax._src.distributed import global_state
from jax.experimental import multihost_utils
from rich.console import Console

from prompt_jax.errors import UserError
from prompt_jax.runtime import libtpu


def draws_bars(console: Console) -> bool:
  """Whether a bar can be redrawn there: on a terminal, or in a notebook that has ipywidgets."""
  return console.is_terminal or (
    console.is_jupyter and importlib.util.find_spec('ipywidgets') is not None
  )


def ends(left: float | None) -> str:
  """The time of day that is `left` seconds from now, with the day if that is another."""
  if left is None:
    return 'ends -'
  now = datetime.datetime.now()
  end = now + datetime.timedelta(seconds=left)
  return f'ends {end:%H:%M:%S}' if end.date() == now.date() else f'ends {end:%b %d %H:%M}'


T = TypeVar('T')


class Coordinator(NamedTuple):
  """How a process finds the others.

  Attributes:
    address: "HOST:PORT" of process 0.
    size: number of processes.
    process: index of this one, from 0.
  """

  address: str
  size: int
  process: int


JOIN_TIMEOUT = 300  # seconds that processes wait for each other to begin
HEARTBEAT_TIMEOUT = 100  # seconds without a sign of life after which JAX ends the run
# Seconds that a process which is done waits for the others to be done: the first may be writing.
DONE_TIMEOUT = 3600
ERROR_TIMEOUT = 5  # the same, for a process that ends with an error
MAX_BYTES = 2**31 - 1  # of a value that is broadcast or gathered
# What an exception says when the other end of a transfer is gone: collectives raise errors of any
# kind that name their transport, and JAX itself one of its own.
TRANSPORT = re.compile(r'gloo|nccl', re.IGNORECASE)
LOST = re.compile(r'connection|unavailable|heartbeat|deadline_exceeded', re.IGNORECASE)


@contextlib.contextmanager
def distributed(
  coordinator: str | None, processes: int | None, process: int | None
) -> Iterator[None]:
  """Joins the processes of a run and leaves them at the end. Enter it before JAX finds devices.

  Without arguments JAX finds the other processes where `srun` started several tasks and on the
  hosts of a TPU pod. Elsewhere there is one process, and this does nothing.

  Args:
    coordinator: "HOST:PORT", an address of process 0 that the others can reach.
    processes: number of processes.
    process: index of this one, from 0.

  Raises:
    UserError: some arguments without the others, or impossible ones; the port is taken; a transfer
      failed because another process was lost.
  """
  if not _initialize(_given(coordinator, processes, process)):
    yield
    return
  if not is_first():
    warnings.simplefilter('ignore')  # process 0 warns
  try:
    yield
  except SystemExit:  # all processes stop after the same step
    jax.distributed.shutdown()
    raise
  except BaseException as e:
    lost = _lost_process(e)
    if lost or not _shutdown_within(ERROR_TIMEOUT):
      # Python's exit would wait for the others, and they for this process.
      atexit.register(_exit_at_once, _exit_code(e))
    if lost:
      raise UserError(
        f'Another process of this run was lost ({lost}). See what it printed last; the same '
        'command in every process resumes from the last saved state.'
      ) from None
    raise
  jax.distributed.shutdown()


def is_first() -> bool:
  """Whether this process writes files and prints."""
  return jax.process_index() == 0


def index() -> int:
  """Index of this process, from 0."""
  return jax.process_index()


def count() -> int:
  """Number of processes."""
  return jax.process_count()


def broadcast(make: Callable[[], T]) -> T:
  """Calls `make` in process 0 only and returns its result in all processes.

  A collective: all processes must call it in the same order.

  Args:
    make: returns something that can be pickled.

  Raises:
    UserError: in all processes, if `make` raised it.
  """
  if count() == 1:
    return make()
  data = _pickled(make) if is_first() else np.zeros(0, np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  padded = np.resize(data, size)  # the others only need an array of that size
  return _unpickled(multihost_utils.broadcast_one_to_all(padded))


def allgather(make: Callable[[], T]) -> list[T]:
  """Calls `make` in every process and returns all results, by process index, in all of them.

  A collective: all processes must call it in the same order.

  Args:
    make: returns something that can be pickled.

  Raises:
    UserError: in all processes, the one of the first process in which `make` raised one.
  """
  if count() == 1:
    return [make()]
  data = _pickled(make)
  sizes = multihost_utils.process_allgather(np.int64(len(data)))
  rows = multihost_utils.process_allgather(np.pad(data, (0, int(max(sizes)) - len(data))))
  return [_unpickled(row[:size]) for row, size in zip(rows, sizes, strict=True)]


def set_value(name: str, value: str) -> None:
  """Sets a value that every process can read with `get_value`. It asks process 0."""
  _client().key_value_set(name, value, allow_overwrite=True)


def get_value(name: str) -> str | None:
  """The value that some process set under a name, None if none did. It asks process 0."""
  try:
    return _client().key_value_try_get(name)
  except jax.errors.JaxRuntimeError as e:
    if 'NOT_FOUND' in str(e):
      return None
    raise


def refuse_multiple(verb: str) -> None:
  """Raises UserError where srun started several processes for a verb that works in one only.

  Touches no device: subprocesses of the verb may need them.
  """
  if _in_srun():
    raise UserError(
      f'{verb} works in one process, and srun started {os.environ["SLURM_NTASKS"]}, which would '
      'all write the same files. Start one.'
    )


def _pickled(make: Callable[[], Any]) -> np.ndarray:
  """uint8[n]: the result of `make`, or the UserError that it raised."""
  result: tuple[Any, UserError | None]
  try:
    result = (make(), None)
  except UserError as e:
    result = (None, e)
  data = pickle.dumps(result)
  if len(data) > MAX_BYTES:
    error = UserError(
      f'A value of {len(data)} bytes cannot be sent to other processes, which takes at most '
      f'{MAX_BYTES}. If it is a trained model, evaluate it in one process with a mesh over the '
      'devices of its host.',
      parameters=['mesh'],
    )
    data = pickle.dumps((None, error))
  return np.frombuffer(data, np.uint8)


def _unpickled(data: np.ndarray) -> Any:
  """The inverse of `_pickled`; raises the error."""
  value, error = pickle.loads(data.tobytes())
  if error is not None:
    raise error
  return value


def _given(
  coordinator: str | None, processes: int | None, process: int | None
) -> Coordinator | None:
  """The coordinator that the user named, None if nothing was given."""
  given = {'coordinator': coordinator, 'processes': processes, 'process': process}
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    return None
  if coordinator is None or processes is None or process is None:
    raise UserError(
      f'{", ".join(n for n in given if n not in missing)} without {", ".join(missing)}: give all '
      'three, with another value of process in each process, or none on a TPU pod or under srun.',
      parameters=missing,
    )
  match = re.fullmatch(r'.+:(\d+)', coordinator)
  if match is None or not 0 < int(match[1]) < 2**16:
    raise UserError(
      f'coordinator is {coordinator!r}; expected HOST:PORT, such as 10.0.0.1:1234, with a port '
      'from 1 to 65535.',
      parameters=['coordinator'],
    )
  if process >= processes:
    raise UserError(
      f'process is {process} of {processes} processes, which are counted from 0; expected at '
      f'most {processes - 1}.',
      parameters=['process'],
    )
  return Coordinator(coordinator, processes, process)


def _initialize(given: Coordinator | None) -> bool:
  """Waits for the other processes. Returns whether there are any."""
  if given is None and not _in_srun() and not _on_tpu():
    return False
  if given and given.process == 0:
    _refuse_taken(given.address)
  jax.config.update('jax_enable_preemption_service', False)  # `Interrupt` handles signals
  # JAX would abort with a stack trace: this line comes before.
  timer = threading.Timer(JOIN_TIMEOUT, _give_up_joining, [given])
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(
      coordinator_address=given.address if given else None,
      num_processes=given.size if given else None,
      process_id=given.process if given else None,
      cluster_detection_method='deactivate' if given else 'slurm' if _in_srun() else None,
      initialization_timeout=2 * JOIN_TIMEOUT,
      heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
      shutdown_timeout_seconds=DONE_TIMEOUT,
    )
  except ValueError:
    if given:
      raise
    return False  # chips of another kind than a TPU host's
  except jax.errors.JaxRuntimeError as e:
    raise _cannot_listen(given.address if given else None, e) from None
  finally:
    timer.cancel()
  return True


def _refuse_taken(address: str) -> None:
  """Listens at the port for a moment: where JAX cannot, it may end the process without a word."""
  dual = socket.has_dualstack_ipv6()
  family = socket.AF_INET6 if dual else socket.AF_INET
  try:
    where = ('', int(address.rpartition(':')[2]))
    socket.create_server(where, family=family, dualstack_ipv6=dual).close()
  except OSError as e:
    if e.errno in (errno.EADDRINUSE, errno.EACCES):
      raise _cannot_listen(address, e) from None


def _cannot_listen(address: str | None, error: Exception) -> UserError:
  return UserError(
    f'Process 0 cannot listen{f" at {address}" if address else ""} ({error}). Give a coordinator '
    'with a free port, the same one in every process.',
    parameters=['coordinator'],
  )


def _on_tpu() -> bool:
  wanted = os.environ.get('JAX_PLATFORMS', 'tpu').split(',')
  return bool(libtpu.tpu_chips() and 'tpu' in wanted and importlib.util.find_spec('libtpu'))


def _in_srun() -> bool:
  """Whether srun started this process as one of several."""
  in_step = 'SLURM_STEP_NODELIST' in os.environ
  return in_step and int(os.environ.get('SLURM_NTASKS', '1')) > 1


def _give_up_joining(given: Coordinator | None) -> None:
  which = f'Process {given.process} of {given.size}' if given else 'This process'
  where = f' at {given.address}' if given else ''
  line = (
    f'prompt-jax: {which} waited {JOIN_TIMEOUT} seconds{where}, and not all processes came. Start '
    'every process within that time, with the same coordinator (an address of process 0 that all '
    'of them reach) and the same number of processes.\n'
  )
  os.write(2, line.encode())
  os._exit(2)


def _lost_process(error: BaseException) -> str | None:
  """The message of a transfer that failed because a process was lost; None for other errors."""
  text = str(error)
  by_jax = isinstance(error, jax.errors.JaxRuntimeError) and LOST.search(text)
  by_collective = isinstance(error, (ValueError, RuntimeError)) and TRANSPORT.search(text)
  return text.strip().splitlines()[0][:200] if by_jax or by_collective else None


def _client() -> Any:
  """The client of JAX's key-value store, for which JAX has no public name."""
  return global_state.client


def _shutdown_within(seconds: float) -> bool:
  """Leaves the other processes once all want to leave; False if some do not in that time."""
  thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
  thread.start()
  thread.join(seconds)
  return not thread.is_alive()


def _exit_code(error: BaseException) -> int:
  """The exit code that `main` gives to an error."""
  if isinstance(error, KeyboardInterrupt):
    return 130
  return 1 if _lost_process(error) is None and not isinstance(error, UserError) else 2


def _exit_at_once(code: int) -> None:
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)
