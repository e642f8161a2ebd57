"""A task by its name: the embedded ones, data sets in a folder, and whatever seqio knows."""

from collections.abc import Sequence

from prompt_jax.data.example import Task
from prompt_jax.errors import unknown
from prompt_jax.tasks import docstrings, glue, jsonl, super_glue, tfds

EMBEDDED = {
  'docstrings_iid': docstrings.docstrings_iid,
  'docstrings_files': docstrings.docstrings_files,
}
SUITES = {'glue_': glue.glue_task, 'super_glue_': super_glue.super_glue_task}
TASKLESS = 'taskless_'


def downloaded() -> list[str]:
  """Names of the data sets that come through tensorflow-datasets."""
  return [*(f'glue_{n}' for n in glue.FORMATS), *(f'super_glue_{n}' for n in super_glue.FORMATS)]


def names() -> list[str]:
  """The names that `find` knows without a folder or a module of the user's."""
  return sorted([*EMBEDDED, *downloaded(), *(TASKLESS + name for name in downloaded())])


def find(name: str, folder: str | None = None, modules: Sequence[str] = ()) -> Task:
  """The task of that name.

  Args:
    name: an embedded task, `glue_NAME` or `super_glue_NAME` (through tensorflow-datasets), with
      `folder` a data set in it, or, with `modules`, a task or mixture that they register with
      seqio. With `taskless_` before the name of a data set, its inputs begin without the task's
      name, as in prompt tuning.
    folder: of JSON Lines files (see `jsonl.py`).
    modules: Python modules that register seqio tasks, imported first.

  Raises:
    UserError: no such task, or seqio is needed and absent.
  """
  base = name.removeprefix(TASKLESS)
  taskless = name != base
  if folder is not None:
    return jsonl.jsonl_task(base, folder, taskless)
  if modules:
    return tfds.seqio_library(name).seqio_task(name, modules)
  if name in EMBEDDED:
    return EMBEDDED[name]()
  for prefix, make in SUITES.items():
    if base.startswith(prefix):
      return make(base.removeprefix(prefix), taskless)
  raise unknown(
    'task',
    name,
    names(),
    'Data sets in JSON Lines files need the --folder they are in, other seqio tasks the --module '
    'that registers them.',
  )
