"""gin's global state, held by one reader at a time and left as it was."""

import contextlib
import threading
from collections.abc import Iterator

from gin import config as gin_config

# gin keeps one configuration for the whole process; another thread waits for its turn.
_turn = threading.RLock()


@contextlib.contextmanager
def isolated() -> Iterator[None]:
  """An empty gin configuration for as long as it is entered; then the one before, unchanged.

  What was registered with gin stays registered, as a module is imported only once.
  """
  with _turn:
    dicts = (gin_config._CONFIG, gin_config._OPERATIVE_CONFIG, gin_config._SINGLETONS)
    before = [dict(d) for d in dicts]
    imports, prefixes = set(gin_config._IMPORTS), list(gin_config._LOCATION_PREFIXES)
    readers, locked = list(gin_config._FILE_READERS), gin_config.config_is_locked()
    for d in (*dicts, gin_config._IMPORTS):
      d.clear()
    gin_config._set_config_is_locked(False)
    try:
      # A scope that the caller is in would choose other bindings.
      with gin_config.config_scope(None):
        yield
    finally:
      for d, saved in zip(dicts, before, strict=True):
        d.clear()
        d.update(saved)
      gin_config._IMPORTS.clear()
      gin_config._IMPORTS.update(imports)
      gin_config._LOCATION_PREFIXES[:] = prefixes
      gin_config._FILE_READERS[:] = readers
      gin_config._set_config_is_locked(locked)
