"""The text of an operative configuration, read without gin."""

import ast
import re
from collections.abc import Mapping
from typing import Any


def settings(text: str) -> dict[str, str]:
  """{'STEPS': '100'} of gin text, which has one setting a line (or goes on indented)."""
  joined = re.sub(r'\\?\n +', ' ', text)
  pairs = (line.split(' = ', 1) for line in joined.splitlines() if ' = ' in line)
  return {name: ' '.join(value.split()) for name, value in pairs if not name.startswith('#')}


def value(found: Mapping[str, str], name: str) -> Any:
  """What a setting is: macros are followed, Python literals become values, the rest stays text.

  Args:
    found: see `settings`.
    name: of a macro or binding; None if there is none.
  """
  seen: set[str] = set()
  while name in found and name not in seen:
    seen.add(name)
    text = found[name]
    if not text.startswith('%'):
      break
    name = text[1:]
  else:
    return None
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    return text
