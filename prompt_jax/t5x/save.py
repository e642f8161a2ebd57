"""A prompt file beside every checkpoint that T5X saves, in either of its formats."""

import dataclasses
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tensorflow as tf
from flax import traverse_util
from jax.experimental import multihost_utils
from t5x import checkpoints

from prompt_jax.checkpoints.backbone import fingerprint
from prompt_jax.checkpoints.prompt_file import Prompt, describe_method, load_prompt, save_prompt
from prompt_jax.errors import UserError
from prompt_jax.t5x.model import PromptedModel
from prompt_jax.t5x.names import from_t5x, is_ours
from prompt_jax.t5x.vocabulary import sha256

Tree = dict[str, Any]
NAME = re.compile(r'checkpoint_(\d+)\.safetensors')


@dataclasses.dataclass
class SavePrompt:
  """For `SaveCheckpointConfig.state_transformation_fns`, which T5X calls at every save.

  It changes nothing in the state: it writes `prompts/checkpoint_{step}.safetensors`. T5X itself
  subclasses checkpointers for such a purpose, but with Orbax it ignores them.

  Attributes:
    model: that is trained.
    model_dir: of the run, local or remote (`gs://`); its folder `prompts` gets the files.
    base_model: name of the backbone, for people.
    task: its name, for people.
    feature_lengths: T5X's task_feature_lengths.
    labels: what the task answers with; () for free text.
  """

  model: PromptedModel
  model_dir: str
  base_model: str = 'unknown'
  task: str = 'unknown'
  feature_lengths: Mapping[str, int] | None = None
  labels: Sequence[str] = ()
  _fingerprint: str | None = dataclasses.field(default=None, init=False)

  @property
  def folder(self) -> str:
    return os.path.join(self.model_dir, 'prompts')

  def __call__(self, state_dict: Any, parameter_infos: Any) -> tuple[Any, Any]:
    """Writes the prompt of the state; every process takes part, the first one writes.

    Raises:
      UserError: something else than the prompt trains.
    """
    flat = traverse_util.flatten_dict(state_dict['target'], sep='/')
    self._check(flat)
    if self._fingerprint is None:  # the backbone does not change
      frozen = {name: Whole(leaf) for name, leaf in flat.items() if not is_ours(name)}
      self._fingerprint = fingerprint(traverse_util.unflatten_dict(frozen, sep='/'))
    ours = {name: _whole(leaf) for name, leaf in flat.items() if is_ours(name)}
    _, params, constants = from_t5x(self.model.prompt, traverse_util.unflatten_dict(ours, sep='/'))
    step = int(_whole(state_dict['state']['step']))
    if jax.process_index() == 0:
      metadata = self._metadata(step)
      path = os.path.join(self.folder, f'checkpoint_{step}.safetensors')
      initial = self._initial(step) or params
      _write(path, Prompt(params, constants, metadata, initial))
    return state_dict, parameter_infos

  def _check(self, flat: Mapping[str, Any]) -> None:
    trainable, _ = self.model.split(traverse_util.unflatten_dict(dict(flat), sep='/'))
    others = [n for n in traverse_util.flatten_dict(trainable, sep='/') if not is_ours(n)]
    if others:
      raise UserError(
        f'SavePrompt writes prompts, but {others[0]} and {len(others) - 1} more parameters of the '
        'model train too. Leave it out: SaveCheckpointConfig.state_transformation_fns = [].'
      )

  def _metadata(self, step: int) -> dict[str, Any]:
    model, lengths = self.model, self.feature_lengths or {}
    method = model.prompt
    return {
      'base_model': self.base_model,
      'fingerprint': self._fingerprint,
      'width': model.architecture.emb_dim,
      'vocabulary': sha256(model.input_vocabulary),
      'method': type(method).__name__,
      'method_config': describe_method(method),
      'length': getattr(method, 'length', 0),
      'task': self.task,
      'labels': list(self.labels) or None,
      'input_length': lengths.get('inputs'),
      'target_length': lengths.get('targets'),
      'step': step,
    }

  def _initial(self, step: int) -> Tree:
    """The prompt that the run began with, from its first file; {} if this is that file."""
    if not tf.io.gfile.isdir(self.folder):
      return {}
    found = [m for name in tf.io.gfile.listdir(self.folder) if (m := NAME.fullmatch(name))]
    earlier = [m for m in found if int(m[1]) < step]
    if not earlier:
      return {}
    first = min(earlier, key=lambda m: int(m[1]))
    with tempfile.TemporaryDirectory() as local:
      copy = os.path.join(local, first[0])
      tf.io.gfile.copy(os.path.join(self.folder, first[0]), copy)
      return load_prompt(copy).initial


@dataclasses.dataclass(frozen=True)
class Whole:
  """A leaf of the state, gathered from all devices and processes while it is indexed."""

  leaf: Any

  @property
  def shape(self) -> tuple[int, ...]:
    return tuple(self.leaf.shape)

  def __getitem__(self, index: Any) -> np.ndarray:
    return _whole(self.leaf)[index]


def _whole(leaf: Any) -> np.ndarray:
  """The value of a leaf on this host. T5X's older checkpointer hands leaves over unread."""
  if isinstance(leaf, checkpoints.LazyArray):
    leaf = leaf.get()
  if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
    return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
  return np.asarray(leaf)


def _write(path: str, prompt: Prompt) -> None:
  """`save_prompt` to anywhere that TensorFlow can write."""
  name = os.path.basename(path)
  with tempfile.TemporaryDirectory() as local:
    save_prompt(pathlib.Path(local, name), prompt)
    tf.io.gfile.makedirs(os.path.dirname(path))
    # Under another name first, so that nobody finds half a file.
    tf.io.gfile.copy(os.path.join(local, name), f'{path}.tmp', overwrite=True)
    tf.io.gfile.rename(f'{path}.tmp', path, overwrite=True)
