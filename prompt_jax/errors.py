"""Mistakes of a user: told in a line or two, never as a traceback."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
  """A mistake the user can correct. The message says what, got, expected, known names and remedy.

  Attributes:
    parameters: the settings that the remedy is about, by their Python names ("input_length"). The
      command line adds its flags for them; a library's message does not speak of flags.
  """

  def __init__(self, message: str = '', parameters: Sequence[str] = ()):
    super().__init__(message)
    self.parameters = tuple(parameters)

  def _render_traceback_(self) -> list[str]:
    """What IPython shows in a notebook: the message without a traceback."""
    return [f'{type(self).__name__}: {self}']


def install(extra: str) -> str:
  """The command that adds an optional part, for a remedy: prompt_jax is on no index."""
  return f"in a checkout of prompt_jax: pip install -c constraints.txt '.[{extra}]'"


def unknown(
  what: str,
  got: str,
  known: Iterable[str],
  remedy: str = '',
  parameters: Sequence[str] = (),
) -> UserError:
  """The error for a name that does not exist, with the nearest known names first."""
  known = sorted(known)
  near = difflib.get_close_matches(got, known, n=3, cutoff=0.5)
  hint = f' Did you mean {" or ".join(repr(n) for n in near)}?' if near else ''
  names = ', '.join(known) if known else 'none'
  tail = f' {remedy}' if remedy else ''
  return UserError(f'Unknown {what} {got!r}.{hint} Known: {names}.{tail}', parameters)
