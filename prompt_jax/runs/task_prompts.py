"""The prompts of several tasks, taken out of the file that holds them all."""

import pathlib
from collections.abc import Sequence
from typing import Any

from prompt_jax.checkpoints.method import build, describe
from prompt_jax.checkpoints.prompt_file import Prompt, load_prompt, save_prompt
from prompt_jax.data.example import Task
from prompt_jax.errors import UserError
from prompt_jax.injections import Sizes
from prompt_jax.loading import kind_of
from prompt_jax.prompts.base import PromptMethod, Tree, materialise
from prompt_jax.prompts.from_injections import method_of

FOLDER = 'task_prompts'


def for_tasks(prompt: Any, task: Task) -> Any:
  """A prompt method, or None, with as many prompts as there are tasks; most as they are.

  Raises:
    UserError: some of the tasks are measured and never trained on.
  """
  if prompt is None or 'task_id' not in prompt.depends_on:
    return prompt
  if task.source is not None:
    raise UserError(
      f'{task.name!r} trains on {task.source} alone, and {type(prompt).__name__} has a prompt for '
      'each task: those of the others would never train. Give another prompt method.'
    )
  return prompt.for_tasks(max(1, len(task.parts)))


def numbers(prompt: Any, task: Task) -> dict[str, int] | None:
  """Task name -> `Batch.task_id`; None for a prompt method, or none, that does not read it."""
  if prompt is None or 'task_id' not in prompt.depends_on:
    return None
  return {part.name: i for i, part in enumerate(task.parts or (task,))}


def of_task(saved: Prompt, number: int, sizes: Sizes) -> Prompt | None:
  """The prompt of one task by itself, which needs no task id.

  Args:
    saved: of a method that reads "task_id" and nothing else.
    number: of the task, counted from 0, in the order of metadata "tasks".
    sizes: of the model that it was trained on.

  Returns:
    None where no method injects what the task's prompt is, see `prompts.from_injections`.
  """
  method = build(saved.metadata['method_config'])

  def alone(params: Tree) -> tuple[PromptMethod, Tree] | None:
    return method_of(materialise(method, params, saved.constants, sizes, task_id=number))

  found = alone(saved.params)
  if found is None:
    return None
  own, params = found
  initial = alone(saved.initial) if saved.initial else None
  metadata = {
    **{k: v for k, v in saved.metadata.items() if k not in ('tasks', 'gin')},
    'method': type(own).__name__,
    'method_config': describe(own),
    'length': getattr(own, 'length', 0),
    'task': saved.metadata['tasks'][number],
    'taken_from': saved.metadata['task'],
  }
  return Prompt(params, {}, metadata, initial[1] if initial else {})


def write(file: pathlib.Path, parts: Sequence[Task], sizes: Sizes) -> pathlib.Path | None:
  """Writes the prompt of each task beside the file that holds them, into the folder task_prompts.

  Returns:
    The folder, or None for a file of a method that does not hold a prompt for each task.
  """
  kind = kind_of(file)  # where other parameters train as well, there is no prompt by itself
  saved = load_prompt(file, kind)
  if kind != 'prompt' or build(saved.metadata['method_config']).depends_on != {'task_id'}:
    return None
  folder = None
  for number, part in enumerate(parts):
    prompt = of_task(saved, number, sizes)
    if prompt is None:
      continue
    folder = file.parent / FOLDER
    prompt.metadata['labels'] = part.labels and list(part.labels)
    prompt.metadata['words'] = part.words
    prompt.metadata['columns'] = part.columns
    save_prompt(folder / file_name(part), prompt)
  return folder


def file_name(part: Task) -> str:
  """Of the prompt of a task."""
  return f'{part.name.replace("/", "_")}.safetensors'
