"""Several processes that compute as one, each with the devices of its host.

Every process runs the same program on the same values. The first one alone writes files and prints;
what only it can know (a saved state, a file that it wrote) it tells the others.
"""

import contextlib
import glob
import importlib.util
import os
import pickle
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from prompt_jax.errors import UserError

T = TypeVar('T')

# Seconds without a sign of life after which a process counts as lost.
HEARTBEAT = 30
# Seconds that a process waits for the others to end too; less than JAX waits before it aborts.
GRACE = 5
# What the transports between processes say when the other end is gone.
LOST = re.compile(r'gloo|nccl|connection|unavailable|heartbeat|deadline_exceeded', re.IGNORECASE)


@contextlib.contextmanager
def joined(coordinator: str | None, processes: int | None, process: int | None) -> Iterator[None]:
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
  found = _given(coordinator, processes, process) or _found()
  if found is None or not _initialised(found):
    yield
    return
  if not is_first():
    warnings.simplefilter('ignore')  # the first one warns
  try:
    yield
  except Exception as e:
    error = _told(e)
    if _part():
      raise error from e.__cause__
    # The others run on and are told by this end of the connection; Python would wait for them.
    if not isinstance(error, UserError):
      traceback.print_exc()
    print(f'prompt-jax: {error}', file=sys.stderr, flush=True)
    os._exit(2)
  except BaseException:
    _part()
    raise
  _part()


def is_first() -> bool:
  """Whether this process writes files and prints."""
  return jax.process_index() == 0


def count() -> int:
  """How many processes compute together."""
  return jax.process_count()


def from_first(make: Callable[[], T]) -> T:
  """What `make` returns in the first process, which alone calls it, in all of them.

  All processes must call this in the same order. It waits for them.

  Args:
    make: returns something that can be pickled.

  Raises:
    UserError: `make` did in the first process.
  """
  if count() == 1:
    return make()
  found: tuple[Any, UserError | None] = (None, None)
  if is_first():
    try:
      found = (make(), None)
    except UserError as e:
      found = (None, e)
  data = np.frombuffer(pickle.dumps(found), np.uint8)
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
  sent = np.resize(data, size)  # of the others only the size counts
  value, error = pickle.loads(multihost_utils.broadcast_one_to_all(sent).tobytes())
  if error is not None:
    raise error
  return value


def refuse_several(verb: str) -> None:
  """Raises UserError where srun started several processes for a verb that works in one.

  Touches no device: what the verb starts may need them.
  """
  if _in_srun():
    raise UserError(
      f'{verb} works in one process, and srun started {os.environ["SLURM_NTASKS"]}, which would '
      'all write the same files. Start one.'
    )


def _given(
  coordinator: str | None, processes: int | None, process: int | None
) -> dict[str, Any] | None:
  """Arguments of `jax.distributed.initialize` from the user's; None if none are given."""
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
  return {
    'coordinator_address': coordinator,
    'num_processes': processes,
    'process_id': process,
    'cluster_detection_method': 'deactivate',
  }


def _found() -> dict[str, Any] | None:
  """Arguments of `jax.distributed.initialize` where it finds the others; None elsewhere."""
  if _in_srun():
    return {'cluster_detection_method': 'slurm'}
  wanted = os.environ.get('JAX_PLATFORMS', 'tpu').split(',')
  chips = glob.glob('/dev/accel*') + glob.glob('/dev/vfio/[0-9]*')
  if chips and 'tpu' in wanted and importlib.util.find_spec('libtpu'):
    return {}
  return None


def _in_srun() -> bool:
  """Whether srun started this process as one of several."""
  in_step = 'SLURM_STEP_NODELIST' in os.environ
  return in_step and int(os.environ.get('SLURM_NTASKS', '1')) > 1


def _initialised(arguments: dict[str, Any]) -> bool:
  """Joins the others; false where JAX finds none."""
  try:
    jax.distributed.initialize(**arguments, heartbeat_timeout_seconds=HEARTBEAT)
  except ValueError as e:
    if arguments or 'coordinator_address' not in str(e):
      raise
    return False  # chips of another kind than a TPU host's
  return True


def _told(error: Exception) -> Exception:
  """The error, in our words if it tells of a lost process."""
  ours = isinstance(error, UserError)
  if ours or not isinstance(error, (ValueError, RuntimeError)) or not LOST.search(str(error)):
    return error
  what = str(error).strip().splitlines()[0][:200]
  return UserError(
    f'Another process of this run was lost ({what}). Look at what it said last; the same command '
    'in every process goes on from the last saved state.'
  )


def _part() -> bool:
  """Leaves the others once all want to; false if some do not within `GRACE` seconds."""
  thread = threading.Thread(target=jax.distributed.shutdown, daemon=True)
  thread.start()
  thread.join(GRACE)
  return not thread.is_alive()
