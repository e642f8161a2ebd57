"""Files that are written whole or not at all, JSON objects, and checksums beside files.

The checksums of a folder's files lie in a file of their own, so that damage is found when one is
read.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from prompt_jax.errors import UserError


def read_json(path: pathlib.Path) -> dict[str, Any]:
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


def write_json(path: pathlib.Path, about: Mapping[str, Any]) -> None:
  """Writes an object, whole or not at all.

  Raises:
    UserError: the folder cannot be written.
  """
  write_atomically(path, (json.dumps(about, indent=2) + '\n').encode())


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
  """Writes a file so that a reader sees the old bytes or the new ones, even after a crash.

  Raises:
    UserError: the folder cannot be written (named, with the reason); the old file is kept.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.tmp')
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(temporary, 'wb') as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    os.replace(temporary, path)
  except OSError as e:
    _remove(temporary)
    raise UserError(
      f'Cannot write {path.name!r} into the folder {str(path.parent)!r}: {e.strerror or e}. '
      'Free some space or give another folder.'
    ) from None


def _remove(path: pathlib.Path) -> None:
  try:
    path.unlink()
  except OSError:
    return  # It was never made, or cannot be removed either: the caller reports the first error.


NAME = 'checksums.json'
BLOCK = 2**20  # bytes that are read at a time
REMEDY = (
  'Copy it again from where it was made, or run its command again in another output folder; '
  f'remove {NAME} beside it to use it as it is.'
)


def seal(folder: pathlib.Path, files: Iterable[pathlib.Path] | None = None) -> None:
  """Keeps the checksums of some files of a folder, in place of those kept before.

  Args:
    folder: that they lie in, or below.
    files: None for all that lie in it, hidden ones left out.

  Raises:
    UserError: the folder cannot be written.
  """
  if files is None:
    files = (p for p in folder.iterdir() if p.is_file() and not p.name.startswith('.'))
  found = {p.relative_to(folder).as_posix(): of_file(p) for p in sorted(files) if p.name != NAME}
  text = json.dumps({'files': found, 'sha256': _of_all(found)}, indent=1)
  write_atomically(folder / NAME, text.encode())


def seal_all(folders: Iterable[pathlib.Path]) -> None:
  """Seals all files of some folders."""
  for folder in folders:
    seal(folder)


def unseal(*folders: pathlib.Path) -> None:
  """Forgets the checksums of folders whose files are about to change.

  Raises:
    UserError: a folder cannot be written.
  """
  for folder in folders:
    try:
      (folder / NAME).unlink(missing_ok=True)
    except OSError as e:
      raise UserError(
        f'Cannot write into the folder {str(folder)!r}: {e.strerror or e}. Give another folder.',
        ['output'],
      ) from None


def check(path: pathlib.Path) -> None:
  """Compares a file with the checksum beside it, where one was kept.

  Raises:
    UserError: they differ, or the checksums are themselves damaged.
  """
  if damage := damaged(path.parent, path.name):
    raise UserError(f'{path.parent / damage} {REMEDY}')


def damaged(folder: pathlib.Path, name: str | None = None) -> str | None:
  """What is wrong with a file of a folder, or with any whose checksum was kept; None if nothing."""
  try:
    kept = json.loads((folder / NAME).read_bytes())
    files, whole = kept['files'], _of_all(kept['files']) == kept['sha256']
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
    return f'{NAME} is damaged ({type(e).__name__}).'
  if not whole:
    return f'{NAME} is damaged: it does not have its own checksum.'
  for each, known in files.items() if name is None else [(name, files.get(name))]:
    if not os.path.isfile(folder / each):
      return f'{each} is missing.' if known else None
    if known is not None and (now := of_file(folder / each)) != known:
      return (
        f'{each} is damaged: {now[0]} bytes with checksum {now[1][:8]}, where {known[0]} with '
        f'{known[1][:8]} were written.'
      )
  return None


def of_file(path: pathlib.Path, size: int | None = None) -> list[Any]:
  """[bytes, sha256] of a file, or of its first `size` bytes."""
  digest, read = hashlib.sha256(), 0
  with open(path, 'rb') as file:
    while part := file.read(BLOCK if size is None else min(BLOCK, size - read)):
      digest.update(part)
      read += len(part)
  return [read, digest.hexdigest()]


def _of_all(files: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
