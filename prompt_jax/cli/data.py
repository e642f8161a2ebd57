"""Which task: a name, a file of the user's own, or recorded examples."""

import importlib
from collections.abc import Mapping, Sequence

from prompt_jax.data.example import Task
from prompt_jax.data.local_file import local_task
from prompt_jax.data.recorded import replay
from prompt_jax.errors import UserError, unknown

# Tasks that need neither TensorFlow nor seqio: name -> the function that makes them.
NATIVE: Mapping[str, tuple[str, str]] = {
  'docstrings_iid': ('prompt_jax.tasks.docstrings', 'docstrings_iid'),
  'docstrings_files': ('prompt_jax.tasks.docstrings', 'docstrings_files'),
}


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

  Raises:
    UserError: both or neither of task and data, an unknown name, or a bad file.
  """
  if task and (data or validation or test):
    raise UserError('Give --task or files of your own (--data), not both.')
  if task:
    return named(task)
  if not (data or validation or test):
    raise UserError(
      'Nothing to work on: give --task NAME (prompt-jax tasks lists them) or --data FILE.'
    )
  if data and data.endswith('.npz'):
    return replay(data)
  return local_task(
    data, validation=validation, test=test, text=text, label=label, inputs=inputs, targets=targets,
    labels=labels, words=words, metrics=metrics,
  )  # fmt: skip


def named(name: str) -> Task:
  """The task of that name; seqio is imported only for a name that is not native."""
  if name in NATIVE:
    module, function = NATIVE[name]
    return getattr(importlib.import_module(module), function)()
  raise unknown('task', name, NATIVE)
