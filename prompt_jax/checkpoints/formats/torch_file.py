"""PyTorch's weight files, only as plain tensors: `weights_only` runs no code that a file brings.

Torch is an extra, "torch", and needed only here.
"""

import pathlib
import zipfile

import numpy as np

from prompt_jax.checkpoints.leaf import Leaves, of_array
from prompt_jax.errors import UserError, install


def leaves(path: pathlib.Path) -> Leaves:
  """The tensors of a `.bin` file, mapped to memory and not yet read where its format allows.

  Raises:
    UserError: torch is not installed, or the file is missing, damaged or holds more than tensors.
  """
  try:
    import torch
  except ImportError:
    raise UserError(
      f'{path} is a file of PyTorch, which is not installed: {install("torch")}, or take the same '
      'model with safetensors.'
    ) from None
  if not path.is_file():
    raise UserError(f'{path.parent} has no {path.name}: the weights are missing')
  try:
    # Files from before torch 1.6 are no zip archives and cannot be mapped.
    archive = zipfile.is_zipfile(path)
    state = torch.load(path, map_location='cpu', weights_only=True, mmap=archive)
  except Exception as e:  # pickle and torch raise many kinds for bytes that are something else
    reason = ' '.join(str(e).split())[:200]
    raise UserError(f'{path} is damaged or holds more than tensors: {reason}') from None
  if not isinstance(state, dict) or not all(torch.is_tensor(x) for x in state.values()):
    raise UserError(f'{path} holds {type(state).__name__}; expected tensors by name.')
  return {name: of_array(_array(tensor), f'{path}: {name}') for name, tensor in state.items()}


def _array(tensor) -> np.ndarray:
  """The same memory; NumPy has no bfloat16 of its own, so its bits go by another name."""
  import ml_dtypes
  import torch

  if tensor.dtype == torch.bfloat16:
    return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
  return tensor.numpy()
