"""Soft-prompt tuning of frozen T5s and decoder-only models in JAX.

The public names below are imported when they are first used, so that `import prompt_jax` is
immediate; what else the package holds is imported from its modules.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = '0.1.0'
__all__ = [
  'Batch',
  'Context',
  'Dims',
  'Head',
  'Injection',
  'Injections',
  'InsideEdit',
  'LayerEdit',
  'Loss',
  'PromptMethod',
  'Seen',
  'Task',
  'Term',
  'TextExample',
  'TunedModel',
  'TunedPrompts',
  'UserError',
  '__version__',
  'compare',
  'edit_prompt',
  'evaluate',
  'export_prompt',
  'help_of',
  'import_prompt',
  'load',
  'local_task',
  'population',
  'predict',
  'text_task',
  'train',
]

if TYPE_CHECKING:
  from prompt_jax.api import evaluate, help_of, load, population, predict, train
  from prompt_jax.batch import Batch
  from prompt_jax.data.example import Task, TextExample, text_task
  from prompt_jax.data.local_file import local_task
  from prompt_jax.errors import UserError
  from prompt_jax.export.prompt import export_prompt
  from prompt_jax.injections import (
    Context,
    Dims,
    Head,
    Injection,
    Injections,
    InsideEdit,
    LayerEdit,
    Seen,
    Term,
  )
  from prompt_jax.prompts.base import PromptMethod
  from prompt_jax.runs.compare import compare
  from prompt_jax.runs.import_prompt import import_prompt
  from prompt_jax.serving.tuned_prompts import TunedPrompts
  from prompt_jax.training.losses import Loss
  from prompt_jax.transfer.edit import edit_prompt
  from prompt_jax.tuned_model import TunedModel

# Public name -> the module that defines it.
_DEFINED_IN = {
  'Batch': 'batch',
  'Context': 'injections',
  'Dims': 'injections',
  'Head': 'injections',
  'Injection': 'injections',
  'Injections': 'injections',
  'InsideEdit': 'injections',
  'LayerEdit': 'injections',
  'Loss': 'training.losses',
  'PromptMethod': 'prompts.base',
  'Seen': 'injections',
  'Task': 'data.example',
  'Term': 'injections',
  'TextExample': 'data.example',
  'TunedModel': 'tuned_model',
  'TunedPrompts': 'serving.tuned_prompts',
  'UserError': 'errors',
  'edit_prompt': 'transfer.edit',
  'compare': 'runs.compare',
  'evaluate': 'api',
  'export_prompt': 'export.prompt',
  'help_of': 'api',
  'import_prompt': 'runs.import_prompt',
  'load': 'api',
  'local_task': 'data.local_file',
  'population': 'api',
  'predict': 'api',
  'text_task': 'data.example',
  'train': 'api',
}


def __getattr__(name: str) -> Any:
  if name not in _DEFINED_IN:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  found = getattr(importlib.import_module(f'{__name__}.{_DEFINED_IN[name]}'), name)
  globals()[name] = found
  return found


def __dir__() -> list[str]:
  return sorted({*globals(), *_DEFINED_IN})
