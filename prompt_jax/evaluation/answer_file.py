"""Answers to many texts in one file, written a batch at a time so that an interrupted run goes on.

Until all texts are answered the answers are in FILE.partial, a line each in the order in which they
were found; then FILE has them in the order of the texts.
"""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError


def partial(path: pathlib.Path) -> pathlib.Path:
  """Where the answers are until all are there."""
  return path.with_name(f'{path.name}.partial')


def start(path: pathlib.Path, about: Mapping[str, Any]) -> dict[int, list[Any]]:
  """What an interrupted run has answered, by number of the text; begins the file if none has.

  Args:
    path: of the file to write.
    about: JSON values by name: all that answers depend on.

  Raises:
    UserError: nothing can be written there, or the answers there are of other texts or settings.
  """
  file = partial(path)
  with _writing(path):
    if os.path.isdir(path):
      raise IsADirectoryError(None, 'it is a folder')
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.isfile(file):
      # It appears with its first line, or not at all.
      write_atomically(file, _line(about))
      return {}
    lines = file.read_bytes().split(b'\n')
  try:
    # What follows the last line break was not written whole, or is nothing.
    begun, *rows = (json.loads(line) for line in lines[:-1])
    answers = {int(row['number']): list(row['answer']) for row in rows}
    changed = [name for name in about if about[name] != begun.get(name)]
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise UserError(
      f'{file} holds no answers of an interrupted run ({error}). Delete it, or give another output '
      'file.',
      ['output'],
    ) from None
  if changed:
    raise UserError(
      f'{file} holds answers of an interrupted run with other {", ".join(changed)}. Call it as '
      'before to go on, or delete this file to begin anew.',
      ['output'],
    )
  with _writing(path), open(file, 'r+b') as opened:
    opened.truncate(sum(len(line) + 1 for line in lines[:-1]))
  return answers


def add(path: pathlib.Path, answers: Mapping[int, Sequence[Any]]) -> None:
  """Appends answers, JSON lists by number of their text."""
  with _writing(path), open(partial(path), 'ab') as file:
    file.write(b''.join(_line({'number': i, 'answer': a}) for i, a in answers.items()))
    file.flush()
    os.fsync(file.fileno())


def finish(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes all answers, a JSON object a line, in place of the partial file."""
  with _writing(path):
    write_atomically(path, b''.join(map(_line, rows)))
    partial(path).unlink()


def _line(row: Mapping[str, Any]) -> bytes:
  return (json.dumps(row, ensure_ascii=False, default=str) + '\n').encode()


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise UserError(f'{path} cannot be written: {error.strerror}.', ['output']) from error
