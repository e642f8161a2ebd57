"""Where data and golden files that are not part of the project lie, if they are present."""

import os
import pathlib

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
