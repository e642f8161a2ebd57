"""Programs that run on eight fake devices, each in a process of its own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent
# Compiling is nearly all of the time, and running nearly none.
FLAGS = (
  '--xla_force_host_platform_device_count=8',
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
)


def on_eight(module: str, *arguments: str | os.PathLike) -> subprocess.CompletedProcess:
  """A module of this folder, run to its end; it must succeed."""
  done = subprocess.run(
    [sys.executable, '-m', f'tests.sharding.{module}', *arguments],
    env={**os.environ, 'XLA_FLAGS': ' '.join(FLAGS), 'JAX_PLATFORMS': 'cpu'},
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stderr
  return done
