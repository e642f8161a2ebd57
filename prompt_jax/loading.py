"""Devices, the model that a run begins with, and what was tuned on it: from files onto devices."""

import collections
import dataclasses
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from flax import traverse_util
from flax.errors import FlaxError

from prompt_jax.checkpoints.backbone import EMBEDDED, Backbone, find, load_backbone
from prompt_jax.checkpoints.prompt_file import Prompt, build_method, check_model, load_prompt
from prompt_jax.data.example import Lengths
from prompt_jax.data.splits import LONGEST
from prompt_jax.errors import UserError
from prompt_jax.injections import Injections, Sizes
from prompt_jax.models.attention.attend import check_device
from prompt_jax.models.causal.config import CausalConfig
from prompt_jax.models.module import Config, module
from prompt_jax.models.t5.config import with_dropout
from prompt_jax.prompted import Prompted, PromptedT5, variables_of
from prompt_jax.prompted_causal import PromptedCausal
from prompt_jax.prompts.base import injected, materialise
from prompt_jax.runtime import processes
from prompt_jax.runtime.devices import choose_device, default_device, enable_compilation_cache
from prompt_jax.sharding import placement as meshes
from prompt_jax.sharding.placement import Placement

Tree = dict[str, Any]

# Most tokens, where neither a setting nor a prompt file says otherwise.
LENGTHS = Lengths(LONGEST, 64)


@dataclasses.dataclass(frozen=True)
class Devices:
  """Where a run computes.

  Attributes:
    device: see `runtime.devices.KINDS`.
    compilation_cache: see `runtime.devices.enable_compilation_cache`.
    mesh: (data, model) devices along each axis; None for one device, or for those of all processes.
    layout: how the model and batches lie on the mesh, see `sharding.layouts.LAYOUTS`.
    slices: that a slower network joins, see `sharding.placement.make`.
  """

  device: str
  compilation_cache: str
  mesh: Sequence[int] | None
  layout: str
  slices: int | None

  def start(self) -> Placement | None:
    """Makes the device JAX's and its compiled programs kept; the mesh, None for one device."""
    chosen = choose_device(self.device)
    enable_compilation_cache(self.compilation_cache, chosen)
    return meshes.make(self.mesh, self.layout, jax.devices(chosen.platform), self.slices)


@dataclasses.dataclass(frozen=True)
class BaseModel:
  """The model that a run begins with, and how it is held.

  Attributes:
    model: see `load_backbone`; None for the one that a prompt file names, else "embedded".
    vocabulary: see `load_backbone`; None for the one that a prompt file names, if any.
    dtype: see `load_backbone`.
    weights: see `load_backbone`.
    query_chunk: see `models.t5.config.T5Config`.
    scores_dtype: see `models.t5.config.T5Config`.
    attention: see `models.t5.config.T5Config`.
  """

  model: str | None = None
  vocabulary: str | None = None
  dtype: str | None = None
  weights: str | None = None
  query_chunk: int | None = None
  scores_dtype: str = 'float32'
  attention: str = 'plain'

  @property
  def name(self) -> str:
    """What `load_backbone` is told."""
    return self.model or EMBEDDED

  def of_prompt(self, metadata: Mapping[str, Any]) -> 'BaseModel':
    """The same of the model that a prompt file names, where none is given."""
    if self.model is not None:
      return self
    vocabulary = self.vocabulary or metadata.get('vocabulary_file')
    return dataclasses.replace(self, model=metadata.get('model'), vocabulary=vocabulary)

  def check_divides(self, placement: Placement | None, rows: int | None = None) -> None:
    """Looks at the shapes of the model, before it is read.

    Args:
      placement: the mesh; None for one device, which refuses nothing.
      rows: see `Placement.check_divides`.

    Raises:
      UserError: it does not divide over the mesh; with the nearest mesh that works.
    """
    if placement is not None:
      _, leaves = find(self.name, self.vocabulary).model()
      placement.check_divides({path: leaf.shape for path, leaf in leaves.items()}, rows)

  def load(self, placement: Placement | None, dropout: float = 0.0) -> Backbone:
    """The model, on the mesh where there is one; `dropout` is its probability of it.

    Raises:
      UserError: a kernel for another kind of device than this, or as `load_backbone`; or a model
        that it does not take.
    """
    check_device(self.attention, default_device())
    place = {'place': placement.put_backbone_leaf} if placement else {}
    backbone = load_backbone(
      self.name,
      self.dtype,
      vocabulary=self.vocabulary,
      weights=self.weights,
      **place,  # type: ignore[arg-type]
    )
    return dataclasses.replace(backbone, config=self.configured(backbone.config, dropout))

  def configured(self, config: Config, dropout: float) -> Config:
    """An architecture that computes as the settings say."""
    return dataclasses.replace(
      with_dropout(config, dropout),
      query_chunk=self.query_chunk,
      scores_dtype=self.scores_dtype,
      attention=self.attention,
    )


def prompted(config: Config, method: nn.Module | None = None) -> Prompted:
  """The model of an architecture and the method that prompts it; None for the bare model."""
  kind: type[Prompted] = PromptedCausal if isinstance(config, CausalConfig) else PromptedT5
  return kind(module(config), method)


class Tuned(NamedTuple):
  """A model ready to be called as `model.apply(variables, ...)`.

  Attributes:
    model: the backbone and its prompt, or the bare backbone.
    variables: "params" and "constants", on the device.
    backbone: as loaded.
    metadata: of the prompt file; {} without one.
  """

  model: Prompted
  variables: dict[str, Tree]
  backbone: Backbone
  metadata: dict[str, Any]

  def injections(self) -> Injections:
    """What the prompt adds to any input, as plain arrays.

    Raises:
      UserError: see `prompts.base.materialise`.
    """
    own = [self.variables.get(part, {}).get('prompt', {}) for part in ('params', 'constants')]
    method: Any = self.model.prompt
    return materialise(method, own[0], own[1], self.backbone.config.sizes)

  def lengths(self, inputs: int | None = None, targets: int | None = None) -> Lengths:
    """Most tokens of an input and of a target: those given, else those trained with."""
    return Lengths(
      inputs or self.metadata.get('input_length') or LENGTHS.inputs,
      targets or self.metadata.get('target_length') or LENGTHS.targets,
    )


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
  base = BaseModel(model, vocabulary, dtype, weights)
  return load_all(base, [prompt_file] if prompt_file is not None else [], None)[0]


def load_all(base: BaseModel, files: Sequence[str], placement: Placement | None) -> list[Tuned]:
  """Prompts on one model, which is read and held once; the bare model without any file.

  Args:
    base: the model.
    files: prompt files; one may also hold tuned weights. The first of several processes reads them.
    placement: the mesh over which the model is to lie; None for one device.

  Raises:
    UserError: a file is missing or damaged, twice there, holds weights among several, or belongs to
      another model than the first; the model does not divide over the mesh.
  """
  twice = [f for f, n in collections.Counter(map(os.path.abspath, files)).items() if n > 1]
  if twice:
    raise UserError(f'{twice[0]} is given twice; a prompt counts once.')
  read = processes.broadcast(lambda: [load_prompt(file, None) for file in files])
  whole = [file for file, saved in zip(files, read, strict=True) if saved.kind == 'weights']
  if whole and len(files) > 1:
    raise UserError(
      f'{whole[0]} holds the weights of a model of its own, and several prompts are evaluated on '
      'one frozen model. Give it alone.'
    )
  if whole and base.weights:
    raise UserError(
      f'{whole[0]} holds weights that were trained, which stay as they are: leave weights out.',
      parameters=['weights'],
    )
  if read:
    base = base.of_prompt(read[0].metadata)
  base.check_divides(placement)
  backbone = base.load(placement)
  if not files:
    ready = _ready(backbone, None, {'backbone': backbone.params}, {}, placement)
    return [Tuned(*ready, backbone, {})]
  return [_attached(backbone, f, saved, placement) for f, saved in zip(files, read, strict=True)]


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
  saved = processes.broadcast(lambda: load_prompt(prompt_file, None))
  return _attached(backbone, prompt_file, saved, placement)


def _attached(
  backbone: Backbone,
  prompt_file: str | os.PathLike[str],
  saved: Prompt,
  placement: Placement | None,
) -> Tuned:
  check_model(
    saved,
    base_model=backbone.name,
    fingerprint=backbone.fingerprint,
    width=backbone.config.emb_dim,
    path=prompt_file,
  )
  method, params, constants = _parts(saved, backbone)
  if saved.kind == 'prompt':
    _check_parameters(method, saved, backbone, prompt_file)
  ready = _ready(backbone, method, params, constants, placement)
  return Tuned(*ready, backbone, saved.metadata)


def _check_parameters(
  method: Any, saved: Prompt, backbone: Backbone, path: str | os.PathLike[str]
) -> None:
  """Refuses a file whose numbers are not those of the method it names."""
  if method is None:
    raise UserError(
      f'The prompt file {str(path)!r} does not say how its method is built ("method_config"). '
      'Train it again.'
    )
  try:
    call = lambda params, constants: injected(method, params, constants, backbone.config.sizes)
    jax.eval_shape(call, saved.params, saved.constants)
  except FlaxError as e:  # a parameter that is missing or of another shape
    what = ' '.join(str(e).split()).split(' (https:')[0]
    raise UserError(
      f'The prompt file {str(path)!r} does not hold the parameters of its method, '
      f'{type(method).__name__}: {what} Copy it again, or train it again.'
    ) from None


def _parts(saved: Prompt, backbone: Backbone) -> tuple[Any, Tree, Tree]:
  """(method, params of the whole model, constants)."""
  method = build_method(saved.metadata.get('method_config'))
  if saved.kind == 'prompt':
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
  placement: Placement | None,
) -> tuple[Prompted, dict[str, Tree]]:
  model = prompted(backbone.config, method)
  if placement is None:
    return model, jax.device_put(variables_of(params, constants))
  params, constants = placement.put_params(params), placement.replicate(constants)
  return model, variables_of(params, constants)


def adds_only_rows(method: Any, file: str | os.PathLike[str], sizes: Sizes) -> bool:
  """Whether rows among the tokens of the input are all that the prompt of a file adds.

  Args:
    method: of the file; None for one of tuned weights, which adds nothing.
    file: of the prompt.
    sizes: of the model.
  """
  if method is None:
    return False
  saved = load_prompt(file)
  found = injected(method, saved.params, saved.constants, sizes)
  others = (dataclasses.replace(found.encoder, prefix=None), found.decoder, found.cross)
  return found.encoder.prefix is not None and not jax.tree.leaves(others)


def command(prompt_file: pathlib.Path, model: str, vocabulary: str | None = None) -> str:
  """The command that applies what was tuned to a line of the user's own."""
  argv = ['prompt-jax', 'infer', '--prompt_file', str(prompt_file)]
  argv += [] if model == EMBEDDED else ['--model', model]
  argv += [] if vocabulary is None else ['--vocabulary', vocabulary]
  return shlex.join([*argv, 'a line of your own'])
