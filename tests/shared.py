"""What tests share: where data outside the project lies, and what a message must say."""

import os
import pathlib
import re

import pytest

SHARED = pathlib.Path(
  os.environ.get('PROMPT_JAX_SHARED', pathlib.Path(__file__).parent.parent.parent / 'shared')
)


def shared(*parts: str) -> pathlib.Path:
  """The path below the shared folder; skips the test where it is absent."""
  path = SHARED.joinpath(*parts)
  if not path.exists():
    pytest.skip(f'{path} is absent; set PROMPT_JAX_SHARED to the folder that holds it')
  return path


def facts(*texts: str) -> str:
  """A pattern for `match=`: every one of `texts`, in any order, in any sentence.

  A number at an end of a text is a whole number: '4' is found neither in '14' nor in '4.5'.
  """
  return '(?s)' + ''.join(f'(?=.*{_whole(str(text))})' for text in texts)


def mentions(said: str, *texts: str) -> bool:
  """Whether `said` holds every one of `texts`, however it is worded."""
  return re.search(facts(*texts), said) is not None


def _whole(text: str) -> str:
  before = r'(?<![\d.])' if text[:1].isdigit() else ''
  after = r'(?!\.?\d)' if text[-1:].isdigit() else ''
  return before + re.escape(text) + after


RESUMED = 'Going on after step'  # what a run says that goes on; the number of the step follows


def resumed(step: int) -> str:
  """What a run says that goes on after `step`."""
  return f'{RESUMED} {step}'
