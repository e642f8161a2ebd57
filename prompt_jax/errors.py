"""Mistakes of a user: told in a line or two, never as a traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """A mistake the user can mend. The message says what, got, expected, known names and remedy."""


def unknown(what: str, got: str, known: Iterable[str], remedy: str = '') -> UserError:
  """The error for a name that does not exist, with the nearest known names first."""
  known = sorted(known)
  near = difflib.get_close_matches(got, known, n=3, cutoff=0.5)
  hint = f' Did you mean {" or ".join(repr(n) for n in near)}?' if near else ''
  names = ', '.join(known) if known else 'none'
  tail = f' {remedy}' if remedy else ''
  return UserError(f'Unknown {what} {got!r}.{hint} Known: {names}.{tail}')
