"""The library of TPUs, where there is none. Imports nothing heavy: every verb calls this first."""

import glob
import os

# Environment variables with which libtpu neither looks for a TPU nor logs that there is none.
WITHOUT_TPU = {
  'TPU_SKIP_MDS_QUERY': '1',  # no metadata server is asked
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',  # any valid one; compilations name their own topology
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_WORKER_ID': '0',
  'TPU_LOG_DIR': 'disabled',
  'TPU_MIN_LOG_LEVEL': '3',
  'TPU_STDERR_LOG_LEVEL': '3',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # otherwise two processes at a time stop each other
}


def tpu_chips() -> list[str]:
  """The device files of TPU chips; other devices may have files of these names too."""
  return glob.glob('/dev/accel*') + glob.glob('/dev/vfio/[0-9]*')


def quiet() -> None:
  """Makes libtpu a compiler only. Call it before JAX loads libtpu, where no TPU will be used."""
  for name, value in WITHOUT_TPU.items():
    os.environ.setdefault(name, value)


def quiet_without_tpu() -> None:
  """The same, if this machine has no TPU."""
  if not tpu_chips():
    quiet()
