"""A task by its name: embedded tasks, data sets in a folder, and tasks that seqio knows."""

import difflib
from collections.abc import Sequence

from prompt_jax.data.example import Task
from prompt_jax.errors import UserError, unknown
from prompt_jax.tasks import catalogue, denoising, docstrings, glue, super_glue, tfds, transfer
from prompt_jax.tasks.data_set import BadRows, folder_task

EMBEDDED = {
  'docstrings_iid': docstrings.docstrings_iid,
  'docstrings_files': docstrings.docstrings_files,
}
SUITES = {'glue_': glue.glue_task, 'super_glue_': super_glue.super_glue_task}
TASKLESS = 'taskless_'


def downloaded() -> list[str]:
  """Names of the data sets that come through tensorflow-datasets."""
  return [
    *(f'glue_{n}' for n in (*glue.FORMATS, *glue.TRANSFER)),
    *(f'super_glue_{n}' for n in super_glue.FORMATS),
    *(name for name, found in catalogue.SETS.items() if found.tfds),
  ]


def names() -> list[str]:
  """Every name that `find` knows, without "taskless_" and variants."""
  return sorted({*EMBEDDED, *downloaded(), *catalogue.SETS, *denoising.NAMES})


def find(
  name: str, folder: str | None = None, modules: Sequence[str] = (), bad: BadRows = 'refuse'
) -> Task:
  """The task of that name.

  Args:
    name: one of `names()`; with a language or domain "NAME.VARIANT". With `taskless_` before the
      name of a data set, its inputs begin without the task's name, as in prompt tuning.
      "SOURCE:TARGETS" is trained on one and measured on others (`transfer.py`). With
      `modules`, a task or mixture that they register with seqio.
    folder: that holds the folders of data sets (`data_set.py`).
    modules: Python modules that register seqio tasks, imported first.
    bad: what to do with a bad row of a file: "refuse" all of it, or "skip" the row.

  Raises:
    UserError: no such task, seqio is needed and absent, or the files are not there.
  """
  base = name.removeprefix(TASKLESS)
  taskless = name != base
  if transfer.is_transfer(name) and not modules:
    return transfer.transfer_task(name, lambda part: find(part, folder, (), bad))
  if name in EMBEDDED:
    return EMBEDDED[name]()
  if modules:
    return tfds.seqio_library(name).seqio_task(name, modules)
  stem = base.partition('.')[0]
  if folder is not None and stem in denoising.NAMES:
    return denoising.denoising_task(base, folder)
  found = catalogue.SETS.get(stem)
  if folder is not None and found is not None:
    return folder_task(base, found, folder, taskless, bad)
  for prefix, make in SUITES.items():
    if base.startswith(prefix):
      return make(base.removeprefix(prefix), taskless)
  if found is not None and found.tfds:
    return tfds.data_set_task(base, found, taskless)
  if found is not None or stem in denoising.NAMES:
    get = f' Get its files: {found.get}.' if found is not None and found.get else ''
    raise UserError(
      f'{stem} is read from files: set folder to the one that holds {_place(stem)}.{get}',
      ['folder'],
    )
  near = difflib.get_close_matches(stem, names(), n=8, cutoff=0.3)
  raise unknown(
    'task',
    name,
    near or names(),
    'prompt-jax tasks lists all; other seqio tasks need a module that registers them.',
    ['module'],
  )


def _place(stem: str) -> str:
  found = catalogue.SETS.get(stem)
  return f'{(found.place if found else "c4") or stem}/'
