"""Prompts that come over HTTP: checked as what a stranger may have made."""

import math
import os
import tempfile
from collections.abc import Mapping
from typing import Any

from prompt_jax.checkpoints.prompt_file import load_facts
from prompt_jax.errors import UserError
from prompt_jax.serving.engine import Changeable

# Where a method and its parts may come from: a name in a file is imported.
OWN = 'prompt_jax.prompts.'
MOST_NUMBERS = 1 << 28  # of an array that the description of a method names by its shape
DEEPEST = 32
LONGEST = 4096  # tokens of an input or an answer: programs are compiled and tried for them


def add(engine: Changeable, name: str, data: bytes) -> None:
  """Adds the prompt of a file's bytes.

  Args:
    engine: that answers with it from then on.
    name: of the prompt.
    data: a prompt file.

  Raises:
    UserError: it is no prompt file of the engine's model, or of a method that is not ours.
  """
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, f'{name}.safetensors')
    with open(path, 'wb') as file:
      file.write(data)
    try:
      kind, metadata, _ = load_facts(path)
      if kind != 'prompt':
        raise UserError(f'It holds {kind}; expected a prompt.')
      _check(metadata.get('method_config'))
      _check_lengths(metadata)
      engine.add(name, path)
    except UserError as e:
      raise UserError(str(e).replace(path, name)) from None


def _check_lengths(metadata: Mapping[str, Any]) -> None:
  for name in ('input_length', 'target_length'):
    if (metadata.get(name) or 0) > LONGEST:
      raise UserError(f'Its {name} is {metadata[name]}; over HTTP at most {LONGEST} is taken.')


def _check(description: Any, depth: int = 0) -> None:
  """Refuses what would import other modules, or make large arrays, when the method is built."""
  if depth > DEEPEST:
    raise UserError('The description of its method is too deep.')
  if isinstance(description, list):
    for part in description:
      _check(part, depth + 1)
  elif isinstance(description, dict):
    kind, shape = description.get('class', OWN), description.get('shape', [])
    if not isinstance(kind, str) or not kind.startswith(OWN):
      raise UserError(
        f'Its method has {str(kind)[:80]!r}; over HTTP only what is of prompt_jax is taken. Give '
        'the server the file.'
      )
    sizes = shape if isinstance(shape, list) else [shape]
    if not all(isinstance(n, int) and n >= 0 for n in sizes) or math.prod(sizes) > MOST_NUMBERS:
      raise UserError('The description of its method names an array of no size, or too large.')
    for part in description.values():
      _check(part, depth + 1)
