"""Types of flags: each reads the text of a value, or says what is wrong with it."""

import argparse
import ast
from collections.abc import Callable
from typing import Any


def whole(text: str, least: int = 1) -> int:
  """A whole number of at least `least`."""
  try:
    n = int(text)
  except ValueError:
    n = least - 1
  if n < least:
    raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least {least}')
  return n


def whole_or_zero(text: str) -> int:
  return whole(text, 0)


def number(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    raise argparse.ArgumentTypeError(f'{text!r} is not a number') from None


def seed(text: str) -> int:
  """A seed of jax.random, which has 32 bits."""
  try:
    n = int(text)
  except ValueError:
    n = -1
  if not 0 <= n < 2**32:
    raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0 to {2**32 - 1}')
  return n


def mesh(text: str) -> tuple[int, int]:
  """'4x2' -> (4, 2)."""
  sides = text.split('x')
  if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
    raise argparse.ArgumentTypeError(f'{text!r} is not a mesh; write DATAxMODEL devices, as 4x2')
  return int(sides[0]), int(sides[1])


def mapping(text: str) -> dict[str, Any]:
  """'{"rte": 2}' -> {'rte': 2}, in the notation of Python."""
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    value = None
  if not isinstance(value, dict):
    raise argparse.ArgumentTypeError(f"{text!r} is not a mapping such as {{'name': 1}}")
  return value


def listed(kind: Callable[[str], Any], example: str = '') -> Callable[[str], list[Any]]:
  """The type of a comma-separated list: '0.3,1' -> [0.3, 1.0].

  Args:
    kind: the type of each element.
    example: a list that is right, for the message about one that is not.
  """

  def parse(text: str) -> list[Any]:
    try:
      return [kind(part) for part in text.split(',')]
    except argparse.ArgumentTypeError as e:
      raise argparse.ArgumentTypeError(f'{e}; expected a list such as {example}') from None

  return parse
