"""Which task: a name, a `Task`, a file or rows of the user's own, or recorded examples."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prompt_jax.data.columns import ColumnChoice
from prompt_jax.data.example import Task
from prompt_jax.data.in_memory import is_in_memory
from prompt_jax.data.local_file import local_task
from prompt_jax.data.mixture import Mixing, mixture
from prompt_jax.data.recorded import replay
from prompt_jax.data.subset import few_shot, noisy_labels
from prompt_jax.errors import UserError
from prompt_jax.evaluation.metrics import needing
from prompt_jax.tasks.data_set import BadRows
from prompt_jax.tasks.find import find


def choose(
  task: str | Task | Sequence[str | Task] | None = None,
  data: Any = None,
  validation: Any = None,
  test: Any = None,
  text: str | None = None,
  label: str | None = None,
  inputs: str | None = None,
  targets: str | None = None,
  labels: Sequence[str] | None = None,
  words: Mapping[str, str] | None = None,
  metrics: Sequence[str] | None = None,
  folder: str | None = None,
  modules: Sequence[str] = (),
  bad_rows: BadRows = 'refuse',
  mixing: Mixing | None = None,
  shots: int | None = None,
  label_noise: float = 0.0,
  draw: int = 0,
  like: ColumnChoice | None = None,
) -> Task:
  """The task that some settings name.

  Args:
    task: a task or its name; several are a mixture.
    data: a file instead: .tsv, .csv or .jsonl (also .gz), or .npz of recorded examples; or rows in
      memory, see `in_memory.memory_table`.
    validation: a file or rows to select the best prompt on.
    test: a file or rows for the final score.
    text: column of the text; several, comma-separated, are joined as "name: value ...".
    label: column of the label.
    inputs: column of the inputs of a text-to-text file, instead of `text`.
    targets: column of its targets, instead of `label`.
    labels: all labels in their order; None for those in the file.
    words: label -> what the model writes for it.
    metrics: names of metrics; None for the task's own.
    folder: where `task` is a folder of JSON Lines files.
    modules: Python modules that register seqio tasks.
    bad_rows: of a data set in a folder: "refuse" or "skip".
    mixing: how often each of several tasks is trained on; None for proportional.
    shots: train on so many examples of each class (and select by as many others); None for all.
    label_noise: share of the training labels that are wrong on purpose.
    draw: seed of the shots and of the noise.
    like: columns that a prompt was tuned on, for a file whose columns are not given.

  Raises:
    UserError: both or neither of task and data, an unknown name, or a bad file.
  """
  if bad_rows not in ('refuse', 'skip'):
    raise UserError(f"bad_rows is {bad_rows!r}; expected 'refuse' or 'skip'.", ['bad_rows'])

  def wrapped(found: Task) -> Task:
    # Shots first: the examples to select by are among them, and their labels stay right.
    found = few_shot(found, shots, draw) if shots is not None else found
    return noisy_labels(found, label_noise, draw) if label_noise else found

  columns = {'text': text, 'label': label, 'inputs': inputs, 'targets': targets}
  files = {'validation': validation, 'test': test}
  if task:
    chosen = [task] if isinstance(task, str | Task) else list(task)
    names = ' '.join(t if isinstance(t, str) else t.name for t in chosen)
    _refuse(f'the task {names}', ['task'], {'data': data, **files, **columns})
    found = [
      wrapped(t if isinstance(t, Task) else find(t, folder, modules, bad_rows)) for t in chosen
    ]
    return found[0] if len(found) == 1 else mixture(found, mixing or Mixing())
  _refuse('a file of your own', ['data'], {'folder': folder, 'module': ' '.join(modules)})
  if bad_rows == 'skip':
    raise UserError(
      "bad_rows = 'skip' is for data sets in a folder; leave it out for a file.", ['bad_rows']
    )
  if data is None and validation is None and test is None:
    raise UserError(
      'Nothing to work on: give the name of a task, or a file.',
      parameters=['task', 'data'],
    )
  if isinstance(data, str) and data.endswith('.npz'):
    _refuse(f'the recorded examples {data}', ['data'], {**files, **columns})
    return wrapped(replay(data))
  own = local_task(
    data, validation=validation, test=test, text=text, label=label, inputs=inputs, targets=targets,
    labels=labels, words=words, metrics=metrics, groups=bool(needing('groups', metrics or ())),
    like=like,
  )  # fmt: skip
  return wrapped(own)


def for_prompts(given: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Task]:
  """Chooses the task that a prompt is evaluated on, by the metadata of its file.

  The labels and columns of a file of one's own are those that the prompt was tuned on, in their
  order, unless `given`, arguments of `choose`, has others: a prompt may be asked for other words
  than its own.
  """
  return lambda metadata: choose(**{**_labels_of(metadata), 'like': columns_of(metadata), **given})


def columns_of(metadata: Mapping[str, Any]) -> ColumnChoice | None:
  """The columns that a prompt was tuned on, where they are recorded."""
  match metadata.get('columns'):
    case None:
      return None
    case {
      'inputs': [str(), *_] as inputs,
      'targets': str(target),
      'kind': 'label' | 'text' as kind,
    }:
      return ColumnChoice(tuple(map(str, inputs)), target, kind)
    case other:
      raise UserError(f'The prompt file is damaged: it names the columns {other!r}.')


def _labels_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
  """The labels that a prompt was tuned on, as arguments of `choose`."""
  if words := metadata.get('words'):
    label_of = {word: label for label, word in words.items()}
    return {'labels': [label_of[word] for word in metadata['labels']], 'words': words}
  return {'labels': metadata.get('labels')}


def _refuse(what: str, naming: Sequence[str], given: Mapping[str, Any]) -> None:
  """Refuses settings that would have no effect beside `what`, which other settings have named."""
  names = [name for name, value in given.items() if is_in_memory(value) or value]
  if names:
    raise UserError(
      f'{", ".join(names)} cannot be combined with {what}. Leave one of them out.',
      [*names, *naming],
    )
