"""A model and what was tuned on it, from files: for the verbs that use a prompt."""

import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import safetensors
from flax import traverse_util
from flax.errors import FlaxError

from prompt_jax import processes
from prompt_jax.checkpoints.backbone import EMBEDDED, Backbone, load_backbone
from prompt_jax.checkpoints.method import build
from prompt_jax.checkpoints.prompt_file import Prompt, check_model, load_prompt
from prompt_jax.errors import UserError
from prompt_jax.models.t5 import T5
from prompt_jax.prompted import PromptedT5, variables_of
from prompt_jax.prompts.base import placeholder
from prompt_jax.sharding.placement import Placement

Tree = dict[str, Any]


class Tuned(NamedTuple):
  """A model ready to be called as `model.apply(variables, ...)`.

  Attributes:
    model: the backbone and its prompt, or the bare backbone.
    variables: "params" and "constants", on the device.
    backbone: as loaded.
    metadata: of the prompt file; {} without one.
  """

  model: PromptedT5
  variables: dict[str, Tree]
  backbone: Backbone
  metadata: dict[str, Any]


def load(
  model: str | None,
  prompt_file: str | None,
  dtype: str | None = None,
  vocabulary: str | None = None,
  weights: str | None = None,
) -> Tuned:
  """Reads a model and, if given, a prompt file (or the weights of a model-tuning run).

  Args:
    model: see `load_backbone`; None for the one the prompt file names, else "embedded".
    prompt_file: None for the bare model.
    dtype: see `load_backbone`.
    vocabulary: see `load_backbone`; None for the one the prompt file names, if any.
    weights: see `load_backbone`.

  Raises:
    UserError: a file is missing or damaged, or the prompt belongs to another model.
  """
  if prompt_file is None:
    backbone = load_backbone(model or EMBEDDED, dtype, vocabulary=vocabulary, weights=weights)
    return Tuned(*_ready(backbone, None, {'backbone': backbone.params}, {}), backbone, {})
  metadata = load_prompt(prompt_file, kind_of(prompt_file)).metadata
  if model is None:
    model = metadata.get('model', EMBEDDED)
    vocabulary = vocabulary or metadata.get('vocabulary_file')
  if weights and kind_of(prompt_file) == 'weights':
    raise UserError(
      f'{prompt_file} holds weights that were trained, which stay as they are: leave WEIGHTS out.'
    )
  backbone = load_backbone(model, dtype, vocabulary=vocabulary, weights=weights)
  return attach(backbone, prompt_file)


def attach(
  backbone: Backbone,
  prompt_file: str | os.PathLike[str],
  placement: Placement | None = None,
) -> Tuned:
  """A model with what a file holds for it, which the first of several processes reads.

  Args:
    backbone: the model.
    prompt_file: a prompt, or weights.
    placement: the mesh over which the model lies; None for one device.

  Raises:
    UserError: the file is missing or damaged, or was made for another model.
  """
  kind, saved = processes.from_first(lambda: _read(prompt_file))
  check_model(
    saved,
    base_model=backbone.name,
    fingerprint=backbone.fingerprint,
    width=backbone.config.emb_dim,
    path=prompt_file,
  )
  method, params, constants = _parts(saved, kind, backbone)
  if kind == 'prompt':
    _check_parameters(method, saved, backbone, prompt_file)
  ready = _ready(backbone, method, params, constants, placement)
  return Tuned(*ready, backbone, saved.metadata)


def _read(prompt_file: str | os.PathLike[str]) -> tuple[str, Prompt]:
  kind = kind_of(prompt_file)
  return kind, load_prompt(prompt_file, kind)


def kind_of(path: str | os.PathLike[str]) -> str:
  """ "prompt" or "weights". Whatever is wrong with the file, `load_prompt` tells."""
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      return json.loads(file.metadata()['prompt_jax'])['kind']
  except (OSError, safetensors.SafetensorError, TypeError, KeyError, ValueError):
    return 'prompt'


def _check_parameters(
  method: Any, saved: Prompt, backbone: Backbone, path: str | os.PathLike[str]
) -> None:
  """Refuses a file whose numbers are not those of the method it names."""
  if method is None:
    raise UserError(
      f'The prompt file {str(path)!r} does not say how its method is built ("method_config"). '
      'Train it again.'
    )
  cfg = backbone.config
  variables = {'params': saved.params, 'constants': saved.constants}
  context = placeholder(cfg.encoder_dims, cfg.decoder_dims)
  try:
    jax.eval_shape(method.apply, variables, context)
  except FlaxError as e:  # a parameter that is missing or of another shape
    what = ' '.join(str(e).split()).split(' (https:')[0]
    raise UserError(
      f'The prompt file {str(path)!r} does not hold the parameters of its method, '
      f'{type(method).__name__}: {what} Copy it again, or train it again.'
    ) from None


def _parts(saved: Prompt, kind: str, backbone: Backbone) -> tuple[Any, Tree, Tree]:
  """(method, params of the whole model, constants)."""
  method = build(saved.metadata.get('method_config'))
  if kind == 'prompt':
    return method, {'backbone': backbone.params, 'prompt': saved.params}, saved.constants
  # Weights replace the leaves that trained; the rest is the model's own.
  flat = traverse_util.flatten_dict({'backbone': backbone.params})
  flat.update(traverse_util.flatten_dict(saved.params))
  return method, traverse_util.unflatten_dict(flat), saved.constants


def _ready(
  backbone: Backbone,
  method: Any,
  params: Tree,
  constants: Tree,
  placement: Placement | None = None,
) -> tuple[PromptedT5, dict[str, Tree]]:
  model = PromptedT5(T5(backbone.config), method)
  put = placement.put_rest if placement else jax.device_put
  return model, put(variables_of(params, constants))


def command(prompt_file: pathlib.Path, model: str) -> str:
  """The command that applies what was tuned to a line of the user's own."""
  named = '' if model == EMBEDDED else f' --model {model}'
  return f"prompt-jax infer --prompt_file {prompt_file}{named} 'a line of your own'"
