"""The files that a run leaves for others: its prompt (or weights), and what it began with."""

import pathlib
from typing import Any

from prompt_jax.checkpoints.prompt_file import Prompt, load_prompt, save_prompt
from prompt_jax.checkpoints.run_state import to_arrays
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes
from prompt_jax.training.partition import Tree, merge


class Output:
  """Writes the trained leaves of one run into its folder; of several processes the first one does.

  If only the prompt trains, that is a prompt file; with any other pattern it is a file of kind
  "weights" with everything that trained, from the root of the model's tree. Both have the whole
  prompt, whatever part of it trains.
  """

  def __init__(
    self, folder: pathlib.Path, trainable: Tree, frozen: Tree, constants: Tree, metadata: Tree
  ):
    """Args: where to; both sides of the split; the model's collection "constants"; what is known
    of the prompt before it is trained."""
    self.kind = 'prompt' if set(trainable) == {'prompt'} else 'weights'
    self.best = folder / f'{self.kind}.safetensors'
    self.last = folder / 'last.safetensors'
    self._initial_path = folder / 'initial.safetensors'
    self._rest = {'prompt': frozen['prompt']} if 'prompt' in frozen else {}
    self._constants, self._metadata = constants.get('prompt', {}), metadata
    self._initial: Tree = {}

  def begin(self, trainable: Tree) -> None:
    """Keeps the initial prompt, from which task vectors are computed, for a run that begins."""
    if self.kind == 'prompt' and processes.is_first():
      prompt = self._prompt(trainable, {'step': 0})
      self._initial = prompt.params
      save_prompt(self._initial_path, prompt)

  def resume(self) -> None:
    """Reads the initial prompt of a run that goes on."""
    if self.kind == 'prompt' and processes.is_first():
      self._initial = load_prompt(self._initial_path).params

  def write(self, path: pathlib.Path, trainable: Tree, facts: dict[str, Any]) -> None:
    """Writes one file; `facts` are put among the metadata."""
    if processes.is_first():
      save_prompt(path, self._prompt(trainable, facts), self.kind)

  def _prompt(self, trainable: Tree, facts: dict[str, Any]) -> Prompt:
    params = merge(trainable, self._rest)
    if self.kind == 'prompt':
      params = params['prompt']
    return Prompt(
      params=_host(params),
      constants=_host(self._constants),
      metadata={**self._metadata, **facts},
      initial=self._initial,
    )


def warm_start(path: str, trainable: Tree) -> Tree:
  """The prompt of a file in place of a fresh one.

  Args:
    path: of a prompt file; `check_model` is the caller's.
    trainable: {'prompt': ...} fresh, whose names and shapes the file must have.

  Raises:
    UserError: something else than the prompt trains, or names or shapes differ.
  """
  if set(trainable) != {'prompt'}:
    raise UserError(
      'warm_start takes a prompt file, so it needs a run that trains the prompt only.'
    )
  saved, fresh = to_arrays(load_prompt(path).params), to_arrays(trainable['prompt'])
  lines = []
  for name in sorted(fresh):
    if name not in saved:
      lines.append(f'  {name}: this run {list(fresh[name].shape)}, the file has none')
    elif saved[name].shape != fresh[name].shape:
      lines.append(f'  {name}: this run {list(fresh[name].shape)}, {list(saved[name].shape)}')
  if lines:
    raise UserError(
      f'The prompt {path!r} does not fit this run:\n' + '\n'.join(lines) + '\n'
      'Give the method and length that it was trained with.'
    )
  return {'prompt': _nested({name: saved[name] for name in fresh})}


def _host(tree: Tree) -> Tree:
  return _nested(to_arrays(tree))


def _nested(arrays: dict[str, Any]) -> Tree:
  tree: Tree = {}
  for name, array in arrays.items():
    *keys, last = name.split('/')
    branch = tree
    for key in keys:
      branch = branch.setdefault(key, {})
    branch[last] = array
  return tree
