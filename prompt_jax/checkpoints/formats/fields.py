"""What the settings that other software wrote may say: used here, without effect here, or refused.

A table has a rule for every field that the other software knows. A field that is in no table is not
refused but named in one warning: the other software keeps unknown fields without reading them too,
and each of its releases writes new ones, so a refusal would lock out next month's folders.
"""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Only:
  """A field that must have one of these values, or be absent or null.

  Attributes:
    values: the only ones that can be done here.
    instead: what to do about any other.
  """

  values: tuple[Any, ...]
  instead: str = 'Give a model without it'


@dataclasses.dataclass(frozen=True)
class Usual:
  """A field that is not used, and of which that is said where it has another value than these."""

  values: tuple[Any, ...]


READ = 'read'
# READ: the caller uses the field. Any other text: why the field changes nothing.
Rule = str | Only | Usual
Rules = Mapping[str, Rule]


def check(about: Mapping[str, Any], rules: Rules, where: str) -> None:
  """Holds every field of a file to its rule; warns once of those that are unknown or not used.

  Args:
    about: the fields; null means absent.
    rules: of all known fields.
    where: the file, for messages.

  Raises:
    UserError: a field has a value that cannot be done here; it is named, with the value.
  """
  said = {name: value for name, value in about.items() if value is not None}
  for name, value in said.items():
    rule = rules.get(name)
    if isinstance(rule, Only) and not _among(value, rule.values):
      known = ' or '.join(repr(v) for v in rule.values) or 'nothing'
      raise UserError(f'{where}: {name} is {shown(value)}; expected {known}. {rule.instead}.')
  unknown = [name for name in said if name not in rules]
  if unknown:
    warnings.warn(
      f'{where}: {len(unknown)} fields that are not known here are not used: {_listed(unknown)}',
      stacklevel=2,
    )
  unused = [
    f'{name}={shown(value)}'
    for name, value in said.items()
    if isinstance(rule := rules.get(name), Usual) and not _among(value, rule.values)
  ]
  if unused:
    warnings.warn(
      f'{where}: {len(unused)} settings of decoding are not used, a run has its own: '
      f'{_listed(unused)}',
      stacklevel=2,
    )


def shown(value: Any) -> str:
  """A value in a message, cut where it is long."""
  text = repr(value)
  return text if len(text) <= 80 else f'{text[:77]}...'


def _listed(names: Sequence[str]) -> str:
  return ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '')


def _among(value: Any, values: Sequence[Any]) -> bool:
  """Whether it is one of them; True is not 1 here."""
  return any(isinstance(value, bool) == isinstance(v, bool) and value == v for v in values)


def whole(about: Mapping[str, Any], name: str, where: str, default: int | None = None) -> int:
  """A field that is a whole number of at least 1.

  Raises:
    UserError: it is none, or is absent and has no default.
  """
  value = about.get(name)
  value = default if value is None else value
  if isinstance(value, bool) or not isinstance(value, int) or value < 1:
    raise UserError(f'{where}: {name} is {shown(value)}; expected a whole number of at least 1.')
  return value
