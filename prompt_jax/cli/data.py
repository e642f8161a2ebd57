"""Which task: a name, a file of the user's own, or recorded examples."""

from collections.abc import Mapping, Sequence

from prompt_jax.data.example import Task
from prompt_jax.data.local_file import local_task
from prompt_jax.data.recorded import replay
from prompt_jax.errors import UserError
from prompt_jax.tasks.find import find


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
    return find(task, folder, modules)
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
