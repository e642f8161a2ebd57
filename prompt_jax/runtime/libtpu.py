"""The TPU's library on a machine without a TPU: it compiles for slices that are only described."""

import glob
import os

# With which it neither looks for a TPU nor writes that it found none.
SETTINGS = {
  'TPU_SKIP_MDS_QUERY': '1',  # no metadata server is asked
  'TPU_ACCELERATOR_TYPE': 'v5litepod-4',  # any valid one; slices to compile for are given
  'TPU_WORKER_HOSTNAMES': 'localhost',
  'TPU_WORKER_ID': '0',
  'TPU_LOG_DIR': 'disabled',
  'TPU_MIN_LOG_LEVEL': '3',
  'TPU_STDERR_LOG_LEVEL': '3',
  'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',  # else two processes at a time stop each other
}


def chips() -> list[str]:
  """The device files of TPU chips; other devices may have files of these names too."""
  return glob.glob('/dev/accel*') + glob.glob('/dev/vfio/[0-9]*')


def set_up() -> None:
  """Before JAX loads it, and not where a run is to have a TPU."""
  for name, value in SETTINGS.items():
    os.environ.setdefault(name, value)
