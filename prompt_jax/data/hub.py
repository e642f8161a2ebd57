"""Data sets of the Hugging Face hub, or folders in its form, as tables: "hf:REPO:CONFIG:SPLIT".

`datasets` reads them. It is imported when one is named.
"""

import functools
import os
import pathlib
import sys
import warnings
from typing import Any, NamedTuple

from prompt_jax.data.table import Table, TableRow, fail
from prompt_jax.errors import UserError, install

PREFIX = 'hf:'
SPLITS = ('train', 'validation', 'test')


class Name(NamedTuple):
  """The parts of "hf:REPO:CONFIG:SPLIT"; REPO may be a folder, the other two may be left out.

  Attributes:
    repo: of the hub, such as "dair-ai/emotion", or a folder.
    config: of several tables of a repository; None for its default.
    split: None for those that there are.
  """

  repo: str
  config: str | None
  split: str | None

  def __str__(self) -> str:
    parts = (self.repo, self.config or '', self.split or '')
    return PREFIX + ':'.join(parts).rstrip(':')

  @property
  def title(self) -> str:
    """Of a task: "glue_cola"."""
    return '_'.join([pathlib.PurePath(self.repo).name, *([self.config] if self.config else [])])


def parse(name: str) -> Name:
  """The parts of a name.

  Raises:
    UserError: no repository, or too many parts.
  """
  repo, *rest = name.removeprefix(PREFIX).split(':')
  if not repo or len(rest) > 2:
    raise UserError(
      f'{name!r} names no data set: write hf:REPO, hf:REPO:CONFIG or hf:REPO:CONFIG:SPLIT (CONFIG '
      'may be empty).'
    )
  config, split = (*rest, '', '')[:2]
  return Name(repo, config or None, split or None)


def splits_of(name: str) -> dict[str, str]:
  """{"train": "hf:REPO:CONFIG:train", ...} of our splits, beside "train"; {} without that.

  Warns of splits with other names, where one of ours is missing.
  """
  found = parse(name)
  splits = list(map(str, _read(found.repo, found.config)))
  if 'train' not in splits:
    return {}
  others = [s for s in splits if s not in (*SPLITS, 'unsupervised')]
  if others and not set(SPLITS) <= set(splits):
    one = found._replace(split=others[0])
    warnings.warn(
      f'{name} also has {", ".join(others)}, which are not used; to use one: validation={one}',
      stacklevel=2,
    )
  return {s: str(found._replace(split=s)) for s in SPLITS if s in splits}


def hub_table(name: str, usual: str | None = None) -> Table:
  """All rows of a split. Labels that are numbers have their names, and None where they are hidden.

  Args:
    name: of the data set.
    usual: the split to take where the name says none and there are several.

  Raises:
    UserError: `datasets` is absent or cannot read it, no such split, or no rows.
  """
  found = parse(name)
  splits = _read(found.repo, found.config)
  split = found.split or (usual if len(splits) > 1 else next(iter(splits)))
  if split not in splits:
    there = list(map(str, splits))
    one = found._replace(split=there[0])
    fail(name, None, f'it has the splits {", ".join(there)}; add one: {one}')
  path = pathlib.Path(str(found._replace(split=split)))
  return dataset_table(splits[split], path)


def dataset_table(dataset: Any, path: pathlib.Path) -> Table:
  """All rows of a `datasets.Dataset`; labels that are numbers have their names, None where hidden.

  Args:
    dataset: the rows, numbered from 1.
    path: where they are from, in messages.

  Raises:
    UserError: no rows.
  """
  # Pictures and sound would be decoded row by row.
  unread = [c for c, f in dataset.features.items() if hasattr(f, 'decode_example')]
  rows = dataset.remove_columns(unread)
  named = {c: f.names for c, f in rows.features.items() if hasattr(f, 'names')}
  if not len(rows):
    fail(path, None, 'it has no rows; a task needs at least one example')

  def values(row: dict[str, Any]) -> dict[str, Any]:
    return {c: _label(named[c], v) if c in named else v for c, v in row.items()}

  # Numbered from 1, as the lines of a file.
  return Table(path, tuple(rows.features), [TableRow(i, values(r)) for i, r in enumerate(rows, 1)])


def _label(names: list[str], number: int | None) -> str | None:
  """Of hidden labels the number is -1."""
  return None if number is None or number < 0 else names[number]


@functools.lru_cache(maxsize=1)
def _read(repo: str, config: str | None) -> Any:
  try:
    import datasets
  except ImportError as error:
    raise UserError(
      f'Data of the Hugging Face hub needs datasets ({error}). Install it, {install("datasets")}'
    ) from error
  if not sys.stderr.isatty():
    datasets.disable_progress_bars()
  if repo.startswith(('.', '/', '~')) and not os.path.isdir(os.path.expanduser(repo)):
    raise UserError(f'There is no folder {repo}.')
  try:
    return datasets.load_dataset(os.path.expanduser(repo), config)
  except Exception as error:  # whatever goes wrong on the way, the reason is in its message
    reason = ' '.join(str(error).split()) or type(error).__name__
    raise UserError(f'{Name(repo, config, None)} cannot be read: {reason}') from error
