"""The settings of a run, as a value and as files from which the run can be repeated.

`operative_config.gin` holds every setting, `command.txt` what was typed or called. A run that goes
on must have the settings that it began with.
"""

import dataclasses
import filecmp
import os
import pathlib
import re
from collections.abc import Sequence

from rich.console import Console

from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.checkpoints.prompt_file import load_prompt, same_prompt
from prompt_jax.configuration import description
from prompt_jax.errors import UserError

SETTINGS, COMMAND = 'operative_config.gin', 'command.txt'
# Saved states of a run, of one of several seeds, and of a stage of pretraining.
STATES = ('state/[0-9]*', 'seed_*/state/[0-9]*', 'runs/*/state/[0-9]*')
# Where and how a run computes may be another each time that it goes on.
MAY_CHANGE = ('COMPILATION_CACHE', 'DEVICE', 'PROFILE')
# Where something lies. What is inside is compared instead, when a run is resumed: the fingerprint
# of the model, the token ids of the training examples and the validation examples with their
# answers. The test examples are measured anew each time.
PLACES = (
  'OUTPUT', 'MODEL', 'VOCABULARY', 'DATA', 'VALIDATION', 'TEST', 'FOLDER', 'CORPUS',
)  # fmt: skip
# Files that prompts begin with: compared by what they hold, and with what the run began with.
START = 'WARM_START'
STARTS = (START, 'INIT_FILE')
# Version 0.1 did not record all settings, and imported its entry points from prompt_jax.cli.
INCOMPLETE = re.compile(r'^from prompt_jax\.cli import', re.MULTILINE)
OUR_MODULE = re.compile(r'^from prompt_jax\S* import (\w+)(?: as (\w+))?', re.MULTILINE)
STRING = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


@dataclasses.dataclass(frozen=True)
class Record:
  """All settings of a run.

  Attributes:
    text: gin text, one setting a line.
    command: the command line or call that makes the run.
    notes: what the user should be told of the settings, a line each.
    recommended: the prompt method that the model recommends and the run does not use, if any.
  """

  text: str
  command: str
  notes: tuple[str, ...] = ()
  recommended: str = ''

  @property
  def settings(self) -> dict[str, str]:
    """Name -> value, both as text."""
    return description.settings_of_text(self.text)

  def show(self, console: Console) -> None:
    """Prints the notes."""
    for note in self.notes:
      console.print(note, highlight=False, markup=False, soft_wrap=True)

  def check(self, folder: pathlib.Path, may_change: Sequence[str] = ()) -> None:
    """Compares the settings with those of the run that a folder holds.

    Args:
      folder: of the run.
      may_change: settings that may differ, besides `MAY_CHANGE` and `PLACES`.

    Raises:
      UserError: they differ, or the record of the run is damaged.
    """
    path = folder / SETTINGS
    if not (os.path.isfile(path) and has_state(folder)):  # not where a name is too long
      return
    on_disk.check(path)
    lines = [
      f'  {name}: {before or "not set"} before, {now or "not set"} now'
      for name, (before, now) in differences(path.read_text('utf-8'), self.text).items()
      if name not in (*MAY_CHANGE, *PLACES, *may_change)
      and not (name in STARTS and _same_start(folder, before, now))
    ]
    if lines:
      raise UserError(
        f'The folder {folder} holds a run with other settings:\n' + '\n'.join(lines) + '\n'
        'Give the settings of that run to resume it, or another output folder.',
        parameters=['output'],
      )

  def write(self, folder: pathlib.Path) -> None:
    """Writes both files, and their checksums in place of those of all files of the folder.

    Raises:
      UserError: the folder cannot be written.
    """
    on_disk.unseal(folder)
    files = [folder / SETTINGS, folder / COMMAND]
    for path, text in zip(files, (self.text, f'{self.command}\n'), strict=True):
      write_atomically(path, text.encode())
    on_disk.seal(folder, files)


def has_state(folder: pathlib.Path) -> bool:
  """Whether a run has saved a state in the folder."""
  return any(any(folder.glob(pattern)) for pattern in STATES)


def _same_start(folder: pathlib.Path, before: str | None, now: str | None) -> bool:
  """Whether two names of files, as gin text, are of one start of the prompts of a folder.

  They are if both files hold the same, or the second what every prompt began with.
  """
  paths = [description.value_of({START: text or ''}, START) for text in (before, now)]
  if not all(isinstance(path, str) and path for path in paths):
    return False
  first, second = paths
  if all(map(os.path.isfile, paths)) and filecmp.cmp(first, second, shallow=False):
    return True
  begun = [p for depth in ('', '*/') for p in folder.glob(f'{depth}initial.safetensors')]
  return second.endswith('.safetensors') and all(
    same_prompt(load_prompt(p), load_prompt(second)) for p in begun
  )


def differences(before: str, now: str) -> dict[str, tuple[str | None, str | None]]:
  """Settings with another value, by name: (before, now), None where not set.

  The module that one of our own functions or classes lies in is no setting. Names that version 0.1
  did not record are not compared with it.
  """
  old, new = _without_modules(before), _without_modules(now)
  names = old.keys() | new.keys()
  if INCOMPLETE.search(before):
    # What a missing name refers to has a name of its own.
    names = {n for n in old if n in new or not old[n].startswith(('%', '@'))}
  return {n: (old.get(n), new.get(n)) for n in sorted(names) if old.get(n) != new.get(n)}


def _without_modules(text: str) -> dict[str, str]:
  """The settings of gin text, in which 'optim.adafactor.decay' is 'adafactor.decay'."""
  aliases = {alias or name for name, alias in OUR_MODULE.findall(text)}
  if not aliases:
    return description.settings_of_text(text)
  in_name = re.compile(rf'(^|/)(?:{"|".join(aliases)})\.(?=\w+\.)')
  in_value = re.compile(rf'(@(?:\w+/)*)(?:{"|".join(aliases)})\.')
  found = {}
  for name, value in description.settings_of_text(text).items():
    parts = STRING.split(value)  # those of odd number are quoted
    parts[::2] = [in_value.sub(r'\1', part) for part in parts[::2]]
    found[in_name.sub(r'\1', name)] = ''.join(parts)
  return found
