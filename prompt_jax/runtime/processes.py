"""Several processes that compute as one, each with the devices of its host.

Every process runs the same program on the same values. The first one alone writes files and prints;
what only it can know (a saved state, a file that it wrote) it tells the others.
"""

import contextlib
import importlib.util
import os
import pickle
import re
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax._src.clusters import ClusterEnv
from jax._src.distributed import global_state
from jax.experimental import multihost_utils

from prompt_jax.errors import UserError
from prompt_jax.runtime import libtpu
from prompt_jax.runtime.watch import Watch

T = TypeVar('T')


class Meeting(NamedTuple):
  """Where the processes of a run meet.

  Attributes:
    where: "HOST:PORT", an address of the first one.
    size: how many they are.
    number: of this one, from 0.
    devices: numbers of those of its host that it takes; None for all.
  """

  where: str
  size: int
  number: int
  devices: Sequence[int] | None


# Seconds that processes wait for each other to begin.
JOINING = 300

# Seconds without a sign of life after which JAX gives a process up and aborts the others, should
# `watch`, which takes less, not have told it.
HEARTBEAT = 100
# Seconds that a process with an error of its own waits for the others to end too.
GRACE = 5
MOST = 2**31 - 1  # bytes told at a time
INTERRUPTED = 130  # exit code, as shells report a process that Ctrl-C ended
# Seconds that one waits which is through, while the first one writes files: `watch` tells if it is
# in vain.
PATIENCE = 3600
# What any error says of a transport between processes whose other end is gone, and what only one of
# JAX's own means by it.
TRANSPORT = re.compile(r'gloo|nccl', re.IGNORECASE)
LOST = re.compile(r'connection|unavailable|heartbeat|deadline_exceeded', re.IGNORECASE)


@contextlib.contextmanager
def distributed(
  coordinator: str | None, processes: int | None, process: int | None
) -> Iterator[None]:
  """Joins the processes of a run for as long as it is entered; before any device is touched.

  Without arguments, where `srun` started several tasks and on the hosts of a TPU pod, JAX finds the
  others by itself; elsewhere there is one process and nothing to join.

  Args:
    coordinator: "HOST:PORT", an address of the first process that the others reach.
    processes: how many there are.
    process: number of this one, from 0.

  Raises:
    UserError: some arguments and not all, or impossible ones; another process was lost.
  """
  meeting = _given(coordinator, processes, process) or _found()
  if meeting is None:
    yield
    return
  watch = _join(meeting)
  if not is_first():
    warnings.simplefilter('ignore')  # the first one warns
  try:
    yield
  except Exception as e:
    if what := _told_of_loss(e):
      watch.end(_lost(what))
    if _part(watch, GRACE):
      raise
    # The others run on and are told by this end of the connection; Python would wait for them.
    if not isinstance(e, UserError):
      traceback.print_exc()
    watch.end(e)
  except SystemExit:  # all stop at one step
    _part(watch, PATIENCE)
    raise
  except BaseException:
    if not _part(watch, GRACE):  # as above
      watch.end('interrupted', INTERRUPTED)
    raise
  _part(watch, PATIENCE)


def is_first() -> bool:
  """Whether this process writes files and prints."""
  return jax.process_index() == 0


def index() -> int:
  """Of this process, from 0."""
  return jax.process_index()


def count() -> int:
  """How many processes compute together."""
  return jax.process_count()


def broadcast(make: Callable[[], T]) -> T:
  """What `make` returns in the first process, which alone calls it, in all of them.

  All processes must call this in the same order. It waits for them.

  Args:
    make: returns something that can be pickled.

  Raises:
    UserError: `make` did in the first process.
  """
  if count() == 1:
    return make()
  data = _pickled(make) if is_first() else np.zeros(0, np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  sent = np.resize(data, size)  # of the others only the size counts
  return _value(multihost_utils.broadcast_one_to_all(sent))


def allgather(make: Callable[[], T]) -> list[T]:
  """What `make` returns in each process, in the order of their numbers, in all of them.

  All processes must call this in the same order. It waits for them.

  Args:
    make: returns something that can be pickled.

  Raises:
    UserError: `make` did in some process; that of the first such process in all of them.
  """
  if count() == 1:
    return [make()]
  data = _pickled(make)
  sizes = multihost_utils.process_allgather(np.int64(len(data)))
  rows = multihost_utils.process_allgather(np.pad(data, (0, int(max(sizes)) - len(data))))
  return [_value(row[:size]) for row, size in zip(rows, sizes, strict=True)]


def set_value(name: str, value: str) -> None:
  """Leaves a note for all processes in the place of an older one of that name."""
  _client().key_value_set(name, value, allow_overwrite=True)


def get_value(name: str) -> str | None:
  """What was left under that name; None if nothing was. It asks the first process."""
  try:
    return _client().key_value_try_get(name)
  except jax.errors.JaxRuntimeError as e:
    if 'NOT_FOUND' in str(e):
      return None
    raise


def refuse_multiple(verb: str) -> None:
  """Raises UserError where srun started several processes for a verb that works in one.

  Touches no device: what the verb starts may need them.
  """
  if _in_srun():
    raise UserError(
      f'{verb} works in one process, and srun started {os.environ["SLURM_NTASKS"]}, which would '
      'all write the same files. Start one.'
    )


def _pickled(make: Callable[[], Any]) -> np.ndarray:
  """uint8[n] what it returns, or the UserError that it raises."""
  found: tuple[Any, UserError | None]
  try:
    found = (make(), None)
  except UserError as e:
    found = (None, e)
  data = pickle.dumps(found)
  if len(data) > MOST:
    error = UserError(
      f'Processes tell each other {MOST} bytes at most, and this is {len(data)}: weights that were '
      'trained, it seems. Evaluate them in one process, with --mesh for the devices of its host.'
    )
    data = pickle.dumps((None, error))
  return np.frombuffer(data, np.uint8)


def _value(data: np.ndarray) -> Any:
  """The opposite of `_pickled`; raises the error."""
  value, error = pickle.loads(data.tobytes())
  if error is not None:
    raise error
  return value


def _given(coordinator: str | None, processes: int | None, process: int | None) -> Meeting | None:
  """What the user says; None for nothing."""
  given = {'--coordinator': coordinator, '--processes': processes, '--process': process}
  missing = [name for name, value in given.items() if value is None]
  if len(missing) == len(given):
    return None
  if coordinator is None or processes is None or process is None:
    raise UserError(
      f'{", ".join(n for n in given if n not in missing)} without {", ".join(missing)}: give all '
      'three, the last one different in each process, or none on a TPU pod or under srun.'
    )
  if not re.fullmatch(r'.+:\d+', coordinator):
    raise UserError(f'--coordinator is {coordinator!r}; expected HOST:PORT, such as 10.0.0.1:1234.')
  if process >= processes:
    raise UserError(
      f'--process is {process} of {processes} processes, which are counted from 0: expected at '
      f'most {processes - 1}.'
    )
  return Meeting(coordinator, processes, process, None)


def _found() -> Meeting | None:
  """What JAX finds out; None where there is one process."""
  wanted = os.environ.get('JAX_PLATFORMS', 'tpu').split(',')
  on_tpu = libtpu.chips() and 'tpu' in wanted and importlib.util.find_spec('libtpu')
  if not _in_srun() and not on_tpu:
    return None
  # As `jax.distributed.initialize` does, which keeps to itself where it lets the processes meet.
  method = 'slurm' if _in_srun() else None
  found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, method, JOINING)
  where, count, number, devices = found
  if where is None or count is None or number is None:
    return None  # chips of another kind than a TPU host's
  return Meeting(where, count, number, devices)


def _in_srun() -> bool:
  """Whether srun started this process as one of several."""
  in_step = 'SLURM_STEP_NODELIST' in os.environ
  return in_step and int(os.environ.get('SLURM_NTASKS', '1')) > 1


def _join(meeting: Meeting) -> Watch:
  """Waits for the others, and watches them from then on."""
  jax.config.update('jax_enable_preemption_service', False)  # signals are `Interrupt`'s
  watch = Watch(meeting.where, meeting.number == 0, _lost)
  # JAX would abort, in words of its own.
  alone = threading.Timer(JOINING, watch.end, [_missed(meeting)])
  alone.daemon = True
  alone.start()
  jax.distributed.initialize(
    watch.address,
    meeting.size,
    meeting.number,
    meeting.devices,
    cluster_detection_method='deactivate',
    coordinator_bind_address=watch.address,
    initialization_timeout=2 * JOINING,
    heartbeat_timeout_seconds=HEARTBEAT,
    shutdown_timeout_seconds=PATIENCE,
  )
  alone.cancel()
  watch.connected()
  return watch


def _missed(meeting: Meeting) -> str:
  return (
    f'Process {meeting.number} of {meeting.size} waited {JOINING} seconds at {meeting.where}, and '
    'not all of them came. Start every process within that time, each with the same --coordinator, '
    'an address of the first that all reach, and the same --processes.'
  )


def _told_of_loss(error: Exception) -> str | None:
  """What an error says if it is that of a transfer from or to a lost process; else None."""
  text = str(error)
  by_jax = isinstance(error, jax.errors.JaxRuntimeError) and LOST.search(text)
  by_any = isinstance(error, (ValueError, RuntimeError)) and TRANSPORT.search(text)
  if isinstance(error, UserError) or not (by_jax or by_any):
    return None
  return str(error).strip().splitlines()[0][:200]


def _lost(what: str) -> str:
  return (
    f'Another process of this run was lost ({what}). Look at what it said last; the same command '
    'in every process goes on from the last saved state.'
  )


def _client() -> Any:
  """Of the service at which the processes meet; JAX has no public name for it."""
  return global_state.client


def _part(watch: Watch, seconds: float) -> bool:
  """Leaves the others once all want to; false if some do not within so many seconds."""
  thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
  thread.start()
  thread.join(seconds)
  if thread.is_alive():
    return False
  watch.close()
  return True
