"""What the values of flags are: functions from the text given to the value, or a message."""

import argparse
import functools
from collections.abc import Callable
from typing import Any


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
    raise argparse.ArgumentTypeError(f'{text!r} is no mesh; write DATAxMODEL devices, as 4x2')
  return int(sides[0]), int(sides[1])


def seeds(text: str) -> list[int]:
  """'0,1,2' -> [0, 1, 2]."""
  try:
    return [seed(s) for s in text.split(',')]
  except argparse.ArgumentTypeError as e:
    raise argparse.ArgumentTypeError(f'{e}; seeds are given as 0,1,2') from None


def listed(kind: Callable[[str], Any], what: str) -> Callable[[str], list[Any]]:
  """A type of flags: '0.3,1' -> [0.3, 1.0]."""

  def parse(text: str) -> list[Any]:
    try:
      return [kind(part) for part in text.split(',')]
    except (ValueError, argparse.ArgumentTypeError):
      raise argparse.ArgumentTypeError(f'{text!r} is not {what}') from None

  return parse


def _at_least(least: int, text: str) -> int:
  try:
    n = int(text)
  except ValueError:
    n = least - 1
  if n < least:
    raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least {least}')
  return n


at_least_zero = functools.partial(_at_least, 0)
at_least_one = functools.partial(_at_least, 1)
