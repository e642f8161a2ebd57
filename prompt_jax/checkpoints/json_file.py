"""JSON objects on disk: what models and prompts say of themselves."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.errors import UserError


def read(path: pathlib.Path) -> dict[str, Any]:
  """The object of a file.

  Raises:
    UserError: the file is missing or holds something else.
  """
  try:
    found = json.loads(path.read_text('utf-8'))
  except OSError as e:
    raise UserError(f'Cannot read {path}: {e.strerror}.') from None
  except ValueError as e:
    raise UserError(f'{path} is not JSON: {e}. Copy it again.') from None
  if not isinstance(found, dict):
    raise UserError(f'{path} holds no JSON object.')
  return found


def write(path: pathlib.Path, about: Mapping[str, Any]) -> None:
  """Writes an object, whole or not at all.

  Raises:
    UserError: the folder cannot be written.
  """
  write_atomically(path, (json.dumps(about, indent=2) + '\n').encode())
