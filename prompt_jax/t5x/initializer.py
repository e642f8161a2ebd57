"""The prompt that T5X's train state begins with, where the backbone comes from a checkpoint."""

from typing import Any, NamedTuple

import jax
import numpy as np
from flax import traverse_util
from t5x import utils

from prompt_jax.checkpoints.backbone import combine, leaf_digests
from prompt_jax.checkpoints.formats.t5x_checkpoint import open_checkpoint
from prompt_jax.checkpoints.prompt_file import Prompt, check_model, load_prompt
from prompt_jax.errors import UserError
from prompt_jax.prompts.initialise import initialise
from prompt_jax.t5x.names import is_ours, to_t5x
from prompt_jax.t5x.vocabulary import SeqioVocabulary

Tree = dict[str, Any]
EMBEDDING = 'token_embedder/embedding'


class Rest(NamedTuple):
  """What a restored checkpoint lacks: a train state without the backbone."""

  state: Tree

  def state_dict(self) -> Tree:
    return self.state


class PromptInitializer(utils.TrainStateInitializer):
  """T5X's initializer, for `train`, `evaluate` and `infer`, with a prompt that fits the backbone.

  With a checkpoint it makes only what that lacks: the prompt, from its initialiser and the
  checkpoint's embedding table or from a prompt file, and its optimizer state. Nothing is drawn for
  the backbone, which T5X would otherwise hold a second time.
  """

  def __init__(self, *, checkpoint: str | None = None, prompt_file: str | None = None, **of_t5x):
    """A `train_state_initializer_cls`.

    Args:
      checkpoint: the backbone that T5X restores; None trains from random weights.
      prompt_file: begin with this prompt and not with the method's initialiser.
      **of_t5x: what T5X gives.

    Raises:
      UserError: a prompt file without the checkpoint of its model.
    """
    if prompt_file and not checkpoint:
      raise UserError(
        f'The prompt {prompt_file!r} belongs to a trained model; give the checkpoint of that model.'
      )
    self._model = of_t5x['init_fn'].__self__
    self._checkpoint, self._prompt_file = checkpoint, prompt_file
    super().__init__(**of_t5x)

  def from_scratch(self, init_rng: jax.Array) -> Any:
    """The whole state without a checkpoint; with one, what T5X asks for as its fall-back.

    Raises:
      UserError: the checkpoint cannot be read, or the prompt file does not belong to it.
    """
    if not self._checkpoint or self._model.prompt is None:
      return super().from_scratch(init_rng)
    prompt = self._prompt(init_rng, self._checkpoint)
    shapes = traverse_util.flatten_dict(self.global_train_state_shape.state_dict())
    _check_shapes(
      {k[1:]: v.shape for k, v in shapes.items() if _ours(k)},
      {k: np.shape(v) for k, v in prompt.items()},
      self._prompt_file,
    )
    replicated = jax.sharding.NamedSharding(self._partitioner.mesh, jax.sharding.PartitionSpec())
    rest = self._without_backbone(init_rng)
    for path, value in prompt.items():
      rest['target', *path] = _placed(np.asarray(value, np.float32), replicated)
    return Rest(traverse_util.unflatten_dict(rest))

  def _without_backbone(self, rng: jax.Array) -> dict[tuple[str, ...], Any]:
    """The flat train state but for the backbone's parameters, which are never computed."""

    def keep(state: Tree) -> dict[str, Any]:
      flat = traverse_util.flatten_dict(state)
      return {'/'.join(k): v for k, v in flat.items() if k[0] != 'target' or _ours(k)}

    made = self._partitioner.partition(
      lambda key: keep(self._initialize_train_state(key).state_dict()),
      in_axis_resources=None,
      out_axis_resources=keep(self.train_state_axes.state_dict()),
    )(rng)
    return {tuple(name.split('/')): leaf for name, leaf in made.items()}

  def _prompt(self, rng: jax.Array, path: str) -> dict[tuple[str, ...], Any]:
    """The prompt's parameters and constants by their T5X names."""
    model = self._model
    if self._prompt_file:
      saved = load_prompt(self._prompt_file)
      self._check(saved, path)
      params, constants = saved.params, saved.constants
    else:
      params, constants = initialise(
        model.prompt,
        jax.random.split(rng)[1],
        _embedding(path),
        SeqioVocabulary(model.input_vocabulary),
        model.architecture.sizes,
      )
    return traverse_util.flatten_dict(to_t5x(model.prompt, {}, params, constants))

  def _check(self, saved: Prompt, path: str) -> None:
    """Reads the whole checkpoint once, parameter by parameter: no prompt on another model."""
    digests: dict[str, bytes] = {}
    for name, leaf in open_checkpoint(path).target.items():
      if not is_ours(name):
        digests |= leaf_digests(name, leaf.read())
    check_model(
      saved,
      base_model=path,
      fingerprint=combine(digests),
      width=self._model.architecture.emb_dim,
      path=self._prompt_file or '',
    )


def _embedding(path: str) -> np.ndarray:
  """float[V, H] the embedding table of a checkpoint."""
  found = open_checkpoint(path).target
  if EMBEDDING not in found:
    raise UserError(
      f'{path} has no {EMBEDDING}; its names begin {", ".join(sorted(found)[:5])}. '
      'Give a checkpoint of a T5 with one tree a layer.'
    )
  return found[EMBEDDING].read()


def _placed(value: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
  return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def _ours(path: tuple[str, ...]) -> bool:
  return path[0] == 'target' and is_ours('/'.join(path[1:]))


def _check_shapes(expected: dict, got: dict, prompt_file: str | None) -> None:
  """Refuses a prompt file of another method or length."""
  lines = [
    f'  {"/".join(path)}: this run {expected.get(path, "none")}, the file {got.get(path, "none")}'
    for path in sorted(expected.keys() | got.keys())
    if expected.get(path) != got.get(path)
  ]
  if lines:
    raise UserError(
      f'The prompt {prompt_file!r} does not fit this run:\n' + '\n'.join(lines) + '\n'
      'Give the method and length that it was trained with.'
    )
