"""How much memory a program may take on a device of this machine."""

import os
import pathlib
from collections.abc import Iterator

import jax

# (folder below /sys/fs, limit, what is in use, what of it files take that are read again at need),
# of control groups in version 2 and in version 1.
_GROUPS = (
  ('cgroup', 'memory.max', 'memory.current', 'inactive_file'),
  ('cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
)


def of_device(device: jax.Device) -> int:
  """Bytes: what JAX has of a GPU or TPU; of a CPU what is available now, to a container its own."""
  stats = device.memory_stats() if device.platform != 'cpu' else None
  return stats['bytes_limit'] if stats else available()


def available(root: pathlib.Path = pathlib.Path('/')) -> int:
  """Bytes that the processes of this machine, or of this container, may take in addition."""
  return min([_of_machine(root), *_of_groups(root)])


def _of_machine(root: pathlib.Path) -> int:
  try:
    lines = (root / 'proc/meminfo').read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith('MemAvailable:'))
  except (OSError, ValueError):  # no Linux: all there is
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return 1024 * int(kilobytes)


def _of_groups(root: pathlib.Path) -> Iterator[int]:
  """What each control group leaves that this process is in; a group limits those below it."""
  try:
    lines = (root / 'proc/self/cgroup').read_text().splitlines()
  except OSError:
    return
  # "0::/a/b" in version 2, "4:memory:/a/b" in version 1. A container may see its own group as the
  # root, under whatever name it has outside.
  named = [line.split(':', 2) for line in lines]
  paths = [path for _, kinds, path in named if kinds == '' or 'memory' in kinds.split(',')]
  for folder, limit, used, files in _GROUPS:
    top = root / 'sys/fs' / folder
    groups = {top / parent for p in paths for parent in _parents(p)} | {top}
    for group in groups:
      try:
        most, now = (int((group / name).read_text()) for name in (limit, used))
        stat = dict(line.split() for line in (group / 'memory.stat').read_text().splitlines())
      except (OSError, ValueError):  # not there, or "max"
        continue
      yield max(0, most - now + int(stat.get(files, 0)))


def _parents(path: str) -> Iterator[str]:
  parts = [part for part in path.split('/') if part]
  return ('/'.join(parts[:n]) for n in range(len(parts) + 1))
