"""Which task: a name, a `Task`, a file or rows of the user's own, or recorded examples.

And of several tasks: the prompt of each, taken out of the file that holds them all.
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_jax.checkpoints.prompt_file import (
  Prompt,
  build_method,
  describe_method,
  load_prompt,
  save_prompt,
)
from prompt_jax.data.columns import ColumnChoice
from prompt_jax.data.example import Example, Task
from prompt_jax.data.local_file import is_in_memory, local_task
from prompt_jax.data.mixture import Mixing, mixture
from prompt_jax.data.recorded import replay
from prompt_jax.data.subset import few_shot, noisy_labels
from prompt_jax.errors import UserError
from prompt_jax.evaluation.metrics import needing
from prompt_jax.features import Numbers, ids_of, numbered
from prompt_jax.injections import TASK, Sizes, features_of
from prompt_jax.named_prompts import OF_TASKS
from prompt_jax.prompts.base import PromptMethod, Tree, materialise
from prompt_jax.prompts.from_injections import method_of
from prompt_jax.tasks.data_set import BadRows
from prompt_jax.tasks.find import find


def for_features(
  prompt: Any, task: Task, splits: Mapping[str, Sequence[Example]]
) -> tuple[Any, Numbers]:
  """A prompt method, or None, made for the features of the training examples; and their values.

  Raises:
    UserError: an example of any split lacks a feature or has a value that does not train, or some
      of the tasks are measured and never trained on.
  """
  names = features_of(prompt)
  if not names:
    return prompt, {}
  if TASK in names and task.source is not None:
    raise UserError(
      f'{task.name!r} trains on {task.source} alone, and {type(prompt).__name__} has a prompt for '
      'each task: those of the others would never train. Give another prompt method.'
    )
  found = numbered(names, [part.name for part in task.parts or (task,)], splits['train'])
  for examples in splits.values():
    ids_of(examples, found)
  return prompt.for_features({name: len(values) for name, values in found.items()}), found


def prompt_of_task(saved: Prompt, number: int, sizes: Sizes) -> Prompt | None:
  """The prompt of one task by itself, which needs no task id.

  Args:
    saved: of a method that reads "task_id" and nothing else.
    number: of the task, counted from 0, in the order of metadata "tasks".
    sizes: of the model that it was trained on.

  Returns:
    None where no method injects what the task's prompt is, see `prompts.from_injections`.
  """
  method = build_method(saved.metadata['method_config'])

  def alone(params: Tree) -> tuple[PromptMethod, Tree] | None:
    return method_of(materialise(method, params, saved.constants, sizes, task_id=number))

  found = alone(saved.params)
  if found is None:
    return None
  own, params = found
  initial = alone(saved.initial) if saved.initial else None
  metadata = {
    **{k: v for k, v in saved.metadata.items() if k not in ('tasks', 'features', 'gin')},
    'method': type(own).__name__,
    'method_config': describe_method(own),
    'length': getattr(own, 'length', 0),
    'task': saved.metadata['tasks'][number],
    'taken_from': saved.metadata['task'],
  }
  return Prompt(params, {}, metadata, initial[1] if initial else {})


def write_task_prompts(
  file: pathlib.Path, parts: Sequence[Task], sizes: Sizes
) -> pathlib.Path | None:
  """Writes the prompt of each task beside the file that holds them, into the folder task_prompts.

  Returns:
    The folder, or None for a file of a method that does not hold a prompt for each task.
  """
  saved = load_prompt(file, None)
  # Where other parameters train as well, there is no prompt by itself.
  if saved.kind != 'prompt':
    return None
  if build_method(saved.metadata['method_config']).depends_on != {TASK}:
    return None
  folder = None
  for number, part in enumerate(parts):
    prompt = prompt_of_task(saved, number, sizes)
    if prompt is None:
      continue
    folder = file.parent / OF_TASKS
    prompt.metadata['labels'] = part.labels and list(part.labels)
    prompt.metadata['words'] = part.words
    prompt.metadata['columns'] = part.columns
    save_prompt(folder / task_file_name(part), prompt)
  return folder


def task_file_name(part: Task) -> str:
  """Of the prompt of a task."""
  return f'{part.name.replace("/", "_")}.safetensors'


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


def for_prompt(chosen: functools.partial[Task], metadata: Mapping[str, Any]) -> Task:
  """The task that a prompt is evaluated on.

  The labels and columns of a file of one's own are those that the prompt was tuned on, in their
  order, unless others were given: a prompt may be asked for other words than its own.

  Args:
    chosen: `choose` with the arguments that were given.
    metadata: of the prompt's file; {} without one.
  """
  recorded = {**_labels_of(metadata), 'like': columns_of(metadata)}
  return chosen.func(**{**recorded, **chosen.keywords})


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
