"""Programs that run on eight fake devices, each in a process of its own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent


def fake_devices(count: int) -> dict[str, str]:
  """The environment of a process that has so many, and compiles as fast as this one."""
  flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_force_host_platform_device_count={count}'
  return {**os.environ, 'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}


def on_eight(module: str, *arguments: str | os.PathLike) -> subprocess.CompletedProcess:
  """A module of this folder, run to its end; it must succeed."""
  done = subprocess.run(
    [sys.executable, '-m', f'tests.sharding.{module}', *arguments],
    env=fake_devices(8),
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stderr
  return done
