"""The prompts of several tasks, taken out of the file that holds them all."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from prompt_jax.checkpoints.method import build, describe
from prompt_jax.checkpoints.prompt_file import Prompt, load_prompt, save_prompt
from prompt_jax.data.example import Task
from prompt_jax.errors import UserError
from prompt_jax.loading import kind_of
from prompt_jax.models.t5.config import T5Config
from prompt_jax.prompts.base import placeholder
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.multitask.task_prompts import TaskPrompts

FOLDER = 'task_prompts'


def for_tasks(prompt: nn.Module | None, task: Task) -> nn.Module | None:
  """The method with as many prompts as there are tasks; other methods as they are.

  Raises:
    UserError: some of the tasks are measured and never trained on.
  """
  if not isinstance(prompt, TaskPrompts):
    return prompt
  if task.source is not None:
    raise UserError(
      f'{task.name!r} trains on {task.source} alone, and TaskPrompts has a prompt for each task: '
      'those of the others would never train. Give another --prompt.'
    )
  return prompt.clone(tasks=max(1, len(task.parts)))


def numbers(prompt: nn.Module | None, task: Task) -> dict[str, int] | None:
  """Task name -> `Batch.task_id`; None for a method that does not ask."""
  if prompt is None or 'task_id' not in prompt.depends_on:
    return None
  return {part.name: i for i, part in enumerate(task.parts or (task,))}


def take_out(saved: Prompt, number: int, config: T5Config) -> Prompt:
  """The prompt of task `number` as one of prompt tuning, which needs no task id.

  Args:
    saved: of the method TaskPrompts.
    number: counted from 0, in the order of metadata "tasks".
    config: of the model that it was trained on.
  """
  method = build(saved.metadata['method_config'])
  ctx = placeholder(config.encoder_dims, config.decoder_dims)
  ctx = dataclasses.replace(ctx, task_id=jnp.full(1, number, jnp.int32))

  def rows(params: dict[str, Any]) -> dict[str, Any]:
    variables = {'params': params, 'constants': saved.constants}
    prefix = method.apply(variables, ctx).encoder.prefix
    return {'encoder': {'prompt': jnp.asarray(prefix[0], jnp.float32)}}

  plain = InputPrompt(length=method.shared + method.length, placement=method.placement)
  name = saved.metadata['tasks'][number]
  metadata = {
    **{k: v for k, v in saved.metadata.items() if k not in ('tasks', 'gin')},
    'method': type(plain).__name__,
    'method_config': describe(plain),
    'length': plain.length,
    'task': name,
    'taken_from': saved.metadata['task'],
  }
  return Prompt(rows(saved.params), {}, metadata, rows(saved.initial) if saved.initial else {})


def write(file: pathlib.Path, parts: Sequence[Task], config: T5Config) -> pathlib.Path | None:
  """Writes the prompt of each task beside a file of TaskPrompts, into the folder task_prompts.

  Returns:
    The folder, or None for a file of another method.
  """
  kind = kind_of(file)  # where other parameters train as well, there is no prompt by itself
  saved = load_prompt(file, kind)
  if kind != 'prompt' or saved.metadata['method'] != TaskPrompts.__name__:
    return None
  folder = file.parent / FOLDER
  for number, part in enumerate(parts):
    prompt = take_out(saved, number, config)
    prompt.metadata['labels'] = part.labels and list(part.labels)
    prompt.metadata['words'] = part.words
    save_prompt(folder / f'{part.name.replace("/", "_")}.safetensors', prompt)
  return folder
