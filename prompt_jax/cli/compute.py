"""With which model a run computes, in what form, and where: settings that several verbs share."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from prompt_jax.checkpoints.backbone import EMBEDDED, Backbone, load_backbone
from prompt_jax.checkpoints.source import find
from prompt_jax.cli.compilation_cache import use as keep_compiled
from prompt_jax.cli.device import choose
from prompt_jax.default_device import default_device
from prompt_jax.models.config import T5Config, with_dropout
from prompt_jax.models.kernel import check_device
from prompt_jax.sharding import placement as meshes
from prompt_jax.sharding.placement import Placement
from prompt_jax.training.settings import Settings


@dataclasses.dataclass(frozen=True)
class BaseModel:
  """The model that a run begins with, and how it is held.

  Attributes:
    model: see `load_backbone`; None for the one that a prompt file names, else "embedded".
    vocabulary: see `load_backbone`; None for the one that a prompt file names, if any.
    dtype: see `load_backbone`.
    weights: see `load_backbone`.
    query_chunk: see `models.config.T5Config`.
    scores_dtype: see `models.config.T5Config`.
    attention: see `models.config.T5Config`.
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
      rows: see `Placement.check`.

    Raises:
      UserError: it does not divide over the mesh; with the nearest mesh that works.
    """
    if placement is not None:
      _, leaves = find(self.name, self.vocabulary).model()
      placement.check({path: leaf.shape for path, leaf in leaves.items()}, rows)

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

  def configured(self, config: T5Config, dropout: float) -> T5Config:
    """An architecture that computes as the settings say."""
    return dataclasses.replace(
      with_dropout(config, dropout),
      query_chunk=self.query_chunk,
      scores_dtype=self.scores_dtype,
      attention=self.attention,
    )


@dataclasses.dataclass(frozen=True)
class Devices:
  """Where a run computes.

  Attributes:
    device: see `cli.device`.
    compilation_cache: see `cli.compilation_cache`.
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
    chosen = choose(self.device)
    keep_compiled(self.compilation_cache, chosen)
    return meshes.make(self.mesh, self.layout, jax.devices(chosen.platform), self.slices)


def on_mesh(
  settings: Settings,
  placement: Placement | None,
  base: BaseModel,
  batch_size: int,
  packed: bool = False,
) -> Settings:
  """The settings for a mesh, before the model is read; as they are for one device.

  Raises:
    UserError: the model or the batch does not divide over it; with the nearest mesh that works.
  """
  if placement is None:
    return settings
  # What suits the caches of one device says nothing of a mesh.
  microbatches = settings.microbatches or 1
  # Packed rows are as many as divide: see `train`.
  base.check_divides(placement, None if packed else batch_size // microbatches)
  return dataclasses.replace(settings, microbatches=microbatches)
