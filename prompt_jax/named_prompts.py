"""Prompt files, or all prompts of the folders of runs, each with a name to ask for it by."""

import collections
import hashlib
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from prompt_jax.checkpoints.prompt_file import load_facts
from prompt_jax.errors import UserError

SUFFIX = '.safetensors'
# The file that a run leaves as its result; it is known by its folder.
RESULT = 'prompt'
# A prompt for each task of a mixture, beside the file that holds all of them.
OF_TASKS = 'task_prompts'
# Files and folders of a run that hold other steps of the prompt.
_STEPS = ('initial', 'last')
STATE = ('state', 'tensorboard')
_NAME = re.compile(r'(?!\.{1,2}$)[A-Za-z0-9_.-]+')  # . and .. are no names in an address


class NamedFile(NamedTuple):
  """A prompt file, and what its prompt is called."""

  name: str
  file: str


def find_prompts(sources: Sequence[str], names: Sequence[str] | None = None) -> list[NamedFile]:
  """The prompts of some files and folders, in order.

  Args:
    sources: prompt files; folders, of which every prompt below counts once: the results of a
      sweep's runs, of a population's members, of the tasks of a mixture.
    names: of the prompts, one each; None for those of the files, where a file called
      prompt.safetensors has the name of its folder.

  Raises:
    UserError: a folder without prompts, or with a damaged one; another number of names than of
      prompts; a name that occurs twice, or has other characters than letters, digits, "_", "."
      and "-".
  """
  found = [named for source in sources for named in _of(source)]
  if not found:
    raise UserError('No prompt is given; expected prompt files, or folders of runs.')
  if names is not None:
    if len(names) != len(found):
      raise UserError(
        f'There are {len(names)} names ({", ".join(names)}) for {len(found)} prompts: '
        f'{", ".join(f.file for f in found)}. Give one each.',
        ['names'],
      )
    found = [NamedFile(name, f.file) for name, f in zip(names, found, strict=True)]
  for name, file in found:
    if not is_name(name):
      raise UserError(
        f'{name!r} is no name for the prompt {file}: expected letters, digits, "_", "." and "-".',
        ['names'],
      )
  count = collections.Counter(f.name for f in found)
  if twice := [f for f in found if count[f.name] > 1]:
    raise UserError(
      f'{twice[0].file} and {twice[1].file} are both called {twice[0].name!r}. Give each prompt a '
      'name of its own.',
      ['names'],
    )
  return found


def is_name(name: str) -> bool:
  """Whether a prompt can be called that: it is part of addresses and of paths."""
  return _NAME.fullmatch(name) is not None


def _of(source: str) -> list[NamedFile]:
  path = pathlib.Path(source)
  if not os.path.isdir(path):  # what is wrong with a file, its reader tells
    named = path.resolve().parent.name if path.stem == RESULT else path.stem
    return [NamedFile(_allowed(named), source)]
  files = _without_copies([p for p in below(path) if load_facts(p).kind == 'prompt'])
  if not files:
    raise UserError(f'There is no prompt in {source} or below. Expected *{SUFFIX} of a run.')
  return [NamedFile(name_in(path, file), str(file)) for file in files]


def below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
  """The prompts of a folder, then those of its folders, by name."""
  for name, below, files in os.walk(folder):
    below[:] = sorted(d for d in below if d not in STATE and not d.startswith('.'))
    for file in sorted(pathlib.Path(name) / f for f in files if f.endswith(SUFFIX)):
      hidden = file.name.startswith('.') or file.stem in _STEPS
      if not hidden and not (file.stem == RESULT and OF_TASKS in below):
        yield file


def _without_copies(files: Sequence[pathlib.Path]) -> list[pathlib.Path]:
  """The files without copies of those further below: a run's best prompt lies above the others."""
  of_content: dict[bytes, pathlib.Path] = {}
  for path in files:
    with open(path, 'rb') as file:
      of_content[hashlib.file_digest(file, 'sha256').digest()] = path
  kept = set(of_content.values())
  return [path for path in files if path in kept]


def name_in(folder: pathlib.Path, file: pathlib.Path) -> str:
  """What the prompt of a file below a folder is called."""
  parts = [p for p in file.relative_to(folder).with_suffix('').parts if p != OF_TASKS]
  if parts[-1] == RESULT:
    parts.pop()
  return _allowed('.'.join(parts) or folder.resolve().name)


def _allowed(name: str) -> str:
  """The name with "_" for what a name may not have."""
  return '_'.join(_NAME.findall(name)) or '_'
