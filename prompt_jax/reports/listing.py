"""The arrays of a model, listed without reading them: for `prompt-jax inspect`."""

import pathlib

import numpy as np
from rich.console import Console
from rich.table import Table

from prompt_jax import byte_size
from prompt_jax.checkpoints import hub
from prompt_jax.checkpoints.backbone import EMBEDDED, find
from prompt_jax.checkpoints.formats.t5x_checkpoint import open_checkpoint


def is_model(name: str) -> bool:
  """Whether a name means a model and not a prompt file, which is one file, *.safetensors."""
  path = pathlib.Path(name)
  if name == EMBEDDED or '://' in name or path.is_dir() or path.name.startswith('checkpoint'):
    return True
  return hub.is_name(name) and not path.exists() and path.suffix != '.safetensors'


def show(name: str, console: Console) -> None:
  """Prints names, shapes and dtypes, the optimizer's state of a T5X checkpoint among them.

  Raises:
    UserError: there is no such model, or it is damaged.
  """
  source = find(name)
  if source.form == 'T5X':
    checkpoint = open_checkpoint(source.where, prefix='')
    form, leaves = f'T5X: {checkpoint.form}', checkpoint.leaves
    weights = list(checkpoint.target.values())
  else:
    form, leaves = source.form, source.model()[1]
    weights = list(leaves.values())
  table = Table(title=f'{source.where} ({form})', title_justify='left')
  table.add_column('array', overflow='fold')
  table.add_column('shape', justify='right')
  table.add_column('dtype')
  for path in sorted(leaves):
    table.add_row(path, str(list(leaves[path].shape)), leaves[path].dtype.name)
  console.print(table, markup=False)
  count = sum(int(np.prod(leaf.shape)) for leaf in weights)
  size = sum(int(np.prod(leaf.shape)) * leaf.dtype.itemsize for leaf in weights)
  console.print(f'{count:,} parameters, {byte_size.written(size)}', highlight=False)
