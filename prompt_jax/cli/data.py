"""Which task: a name, a file of the user's own, or recorded examples."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence

from prompt_jax.data.example import Task
from prompt_jax.data.local_file import local_task
from prompt_jax.data.recorded import replay
from prompt_jax.errors import UserError, unknown
from prompt_jax.tasks import docstrings, glue, super_glue
from prompt_jax.tasks.jsonl import jsonl_task

TASKLESS = 'taskless_'
INSTALL = "pip install 'prompt_jax[seqio]'"


def choose(
  task: str | None = None,
  data: str | None = None,
  validation: str | None = None,
  test: str | None = None,
  text: str | None = None,
  label: str | None = None,
  inputs: str | None = None,
  targets: str | None = None,
  labels: Sequence[str] | None = None,
  words: Mapping[str, str] | None = None,
  metrics: Sequence[str] | None = None,
  folder: str | None = None,
  modules: Sequence[str] = (),
) -> Task:
  """The task that the flags name.

  Args:
    task: a task's name.
    data: a file instead: .tsv, .csv or .jsonl (also .gz), or .npz of recorded examples.
    validation: a file to select the best prompt on.
    test: a file for the final score.
    text: column of the text; several, comma-separated, are joined as "name: value ...".
    label: column of the label.
    inputs: column of the inputs of a text-to-text file, instead of `text`.
    targets: column of its targets, instead of `label`.
    labels: all labels in their order; None for those in the file.
    words: label -> what the model writes for it.
    metrics: names of metrics; None for the task's own.
    folder: where `task` is a folder of JSON Lines files.
    modules: Python modules that register seqio tasks.

  Raises:
    UserError: both or neither of task and data, an unknown name, or a bad file.
  """
  columns = {'text': text, 'label': label, 'inputs': inputs, 'targets': targets}
  files = {'validation': validation, 'test': test}
  if task:
    _refuse(f'--task {task}', {'data': data, **files, **columns})
    return named(task, folder, modules)
  _refuse('a file of your own', {'folder': folder, 'module': modules})
  if not (data or validation or test):
    raise UserError(
      'Nothing to work on: give --task NAME (prompt-jax tasks lists them) or --data FILE.'
    )
  if data and data.endswith('.npz'):
    _refuse('recorded examples', {**files, **columns})
    return replay(data)
  return local_task(
    data, validation=validation, test=test, text=text, label=label, inputs=inputs, targets=targets,
    labels=labels, words=words, metrics=metrics,
  )  # fmt: skip


def _refuse(what: str, given: Mapping[str, object]) -> None:
  """Refuses flags that would have no effect beside `what`."""
  flags = [f'--{name}' for name, value in given.items() if value]
  if flags:
    raise UserError(f'{", ".join(flags)} cannot be combined with {what}. Leave one of them out.')


def native() -> dict[str, Callable[[], Task]]:
  """The tasks that need neither a download nor TensorFlow."""
  return {
    'docstrings_iid': docstrings.docstrings_iid,
    'docstrings_files': docstrings.docstrings_files,
  }


def downloaded() -> list[str]:
  """Names of the tasks that come through tensorflow-datasets."""
  return [f'glue_{n}' for n in glue.FORMATS] + [f'super_glue_{n}' for n in super_glue.FORMATS]


def named(name: str, folder: str | None = None, modules: Sequence[str] = ()) -> Task:
  """The task of that name: native, of JSON Lines files, of GLUE or SuperGLUE, or seqio's.

  "taskless_NAME" leaves the task's name out of the inputs, as the papers on prompt tuning do.

  Raises:
    UserError: there is none, or it needs packages that are not installed.
  """
  base, taskless = name.removeprefix(TASKLESS), name.startswith(TASKLESS)
  if folder is not None:
    return jsonl_task(base, folder, taskless)
  if name in native():
    return native()[name]()
  if base not in downloaded() and not modules:
    known = [*native(), *downloaded()]
    raise unknown('task', name, known, 'Other seqio tasks need the --module that registers them.')
  if importlib.util.find_spec('seqio') is None:
    raise UserError(f'The task {name!r} needs seqio, which is not installed: {INSTALL}')
  if base.startswith('super_glue_') and not modules:
    return super_glue.super_glue_task(base.removeprefix('super_glue_'), taskless)
  if base.startswith('glue_') and not modules:
    return glue.glue_task(base.removeprefix('glue_'), taskless)
  from prompt_jax.data.seqio_source import seqio_task

  return seqio_task(name, modules)
