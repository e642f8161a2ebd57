"""Multitask prompt tuning in folders of Hugging Face PEFT.

Read in PEFT's code (0.21, `tuners/multitask_prompt_tuning/model.py`), and run by the tests: the
rows of task k are `prompt_embeddings` times `prefix_task_cols[k] @ prefix_task_rows[k]`. With 2
submodules, PEFT's default for a T5, its `forward` puts the second half of them before the input of
the decoder, and its `generate` leaves that half out.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from prompt_jax.errors import UserError
from prompt_jax.prompt_formats.foreign import Trained, checked
from prompt_jax.prompts.methods.multitask.mpt import MPT
from prompt_jax.prompts.tables import Plain

METHOD = MPT
KIND = 'MULTITASK_PROMPT_TUNING'
EMBEDDINGS, COLUMNS, ROWS = 'prompt_embeddings', 'prefix_task_cols', 'prefix_task_rows'
TENSORS = (EMBEDDINGS, COLUMNS, ROWS)


def read_multitask(
  arrays: Mapping[str, np.ndarray], path: pathlib.Path, length: int, copies: int
) -> Trained:
  """The method of some arrays.

  Args:
    arrays: by the names of `TENSORS`.
    path: of their file, for messages.
    length: rows before the input.
    copies: num_transformer_submodules.

  Raises:
    UserError: they contradict each other.
  """
  if copies > 2:
    raise UserError(
      f'{str(path)!r} has rows for {copies} stacks of a model, and a T5 has 2. Give the adapter of '
      'a T5.'
    )
  shared = checked(arrays[EMBEDDINGS], path, (length * copies, None))
  factors = checked(arrays[COLUMNS], path, (None, length * copies, None))
  tasks, _, rank = factors.shape
  columns = checked(arrays[ROWS], path, (tasks, rank, shared.shape[1]))
  params = {'encoder/prompt': shared[:length], 'rows': factors, 'columns': columns}
  if copies == 2:
    params['decoder/prompt'] = shared[length:]
  method = MPT(tasks, length, rank, table=Plain(), decoder=copies == 2)
  return Trained(method, params)


def multitask_tensors(prompt: Trained) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """What PEFT's configuration says of such a prompt, and its arrays.

  Raises:
    UserError: PEFT has no form for it.
  """
  method, params = prompt.method, prompt.params
  stacks = [f'{stack}/prompt' for stack in ('encoder', 'decoder') if stack in _tops(params)]
  if method.placement != 'before' or any(name not in params for name in stacks):
    raise UserError(
      'PEFT puts the rows of multitask prompts before the input and trains them as they are; this '
      f'one has placement {method.placement!r} and the table {type(method.table).__name__}. Export '
      'the prompt of each task, in the folder task_prompts, to npy.',
      ['to'],
    )
  shared = np.concatenate([params[name] for name in stacks])
  config = {
    'peft_type': KIND,
    'num_tasks': method.tasks,
    'num_ranks': method.rank,
    'num_virtual_tokens': method.length,
    'token_dim': shared.shape[1],
    'num_transformer_submodules': len(stacks),
    'prompt_tuning_init': 'RANDOM',
  }
  arrays = {EMBEDDINGS: shared, COLUMNS: params['rows'], ROWS: params['columns']}
  return config, arrays


def _tops(params: Mapping[str, Any]) -> set[str]:
  return {path.split('/')[0] for path in params}
