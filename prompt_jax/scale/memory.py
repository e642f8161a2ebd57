"""The memory available to a program on a device of this machine."""

import os
import pathlib
from collections.abc import Iterator

import jax

# Files of control groups, version 2 and version 1: (folder below /sys/fs, limit, memory in use,
# field of memory.stat for cached files, which the kernel can drop).
_GROUPS = (
  ('cgroup', 'memory.max', 'memory.current', 'inactive_file'),
  ('cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'),
)


def of_device(device: jax.Device) -> int:
  """Bytes that JAX may allocate on a GPU or TPU; on a CPU what the machine or container has now."""
  stats = device.memory_stats() if device.platform != 'cpu' else None
  return stats['bytes_limit'] if stats else available()


def available(root: pathlib.Path = pathlib.Path('/')) -> int:
  """Bytes that processes on this machine, or in this container, can still allocate."""
  return min([_of_machine(root), *_of_groups(root)])


def _of_machine(root: pathlib.Path) -> int:
  try:
    lines = (root / 'proc/meminfo').read_text().splitlines()
    (kilobytes,) = (line.split()[1] for line in lines if line.startswith('MemAvailable:'))
  except (OSError, ValueError):  # not Linux: the total memory
    return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return 1024 * int(kilobytes)


def _of_groups(root: pathlib.Path) -> Iterator[int]:
  """The free memory of each control group of this process; a group limits those below it."""
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
