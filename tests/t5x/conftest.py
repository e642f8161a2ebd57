"""These tests need T5X, which is on no package index: docs/t5x.md says how to have it."""

import pytest

# Not `t5x` itself: that is the name of this folder too.
try:
  import t5x.version  # noqa: F401
except ModuleNotFoundError:
  collect_ignore_glob: list[str] = []
  MISSING = True
else:
  MISSING = False


def pytest_collection_modifyitems(items):
  if MISSING:
    for item in items:
      item.add_marker(pytest.mark.skip(reason='T5X is not importable: see docs/t5x.md'))
