"""A prompted T5 as a model of T5X: its trainer, evaluator and inference script take it as it is."""

import dataclasses
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

import flax.core
import jax
import jax.numpy as jnp
import seqio
from t5x import decoding, losses, models, optimizers

from prompt_jax.batch import Batch
from prompt_jax.errors import UserError
from prompt_jax.injections import random_streams
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5, variables_of
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.prompts.initialise import draw
from prompt_jax.t5x.beams import CachedDecoder
from prompt_jax.t5x.names import CONSTANTS, PROMPT_ONLY, from_t5x, logical_axes, to_t5x
from prompt_jax.t5x.optimizer import Only
from prompt_jax.t5x.vocabulary import SeqioVocabulary
from prompt_jax.training.objective import Tree, merge, split

Array = jax.Array
BATCH_FIELDS = tuple(field.name for field in dataclasses.fields(Batch))


class PromptedModel(models.BaseTransformerModel):
  """`PromptedT5` behind T5X's interface; its parameters have T5X's names (see `t5x.names`)."""

  FEATURE_CONVERTER_CLS = seqio.EncDecFeatureConverter

  def __init__(
    self,
    architecture: T5Config,
    prompt: PromptMethod | None,
    input_vocabulary: seqio.Vocabulary,
    output_vocabulary: seqio.Vocabulary,
    optimizer_def: optimizers.OptimizerDef,
    trainable: Sequence[str] = PROMPT_ONLY,
    decode_fn: Callable[..., Any] = decoding.beam_search,
    num_decodes: int = 1,
    return_all_decodes: bool = False,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    loss_normalizing_factor: float | int | str | None = None,
  ):
    """A model for T5X's `train`, `evaluate` and `infer`.

    Args:
      architecture: of the backbone.
      prompt: a prompt method; None for the bare model.
      input_vocabulary: must equal the task's.
      output_vocabulary: must equal the task's.
      optimizer_def: one of T5X's, for what trains; see `t5x.optimizer.Only`.
      trainable: regular expressions of T5X's parameter names; the default is the prompt.
      decode_fn: one of those of T5X's own decoding.
      num_decodes: beams or samples of each input.
      return_all_decodes: give all of them and not the best one only.
      label_smoothing: as in T5X.
      z_loss: as in T5X.
      loss_normalizing_factor: as in T5X; None leaves the loss a sum over target tokens.
    """
    super().__init__(
      module=PromptedT5(T5(architecture), prompt),
      input_vocabulary=input_vocabulary,
      output_vocabulary=output_vocabulary,
      optimizer_def=Only(trainable, optimizer_def),
      decode_fn=decode_fn,
      label_smoothing=label_smoothing,
      z_loss=z_loss,
      loss_normalizing_factor=loss_normalizing_factor,
    )
    self.architecture, self.prompt = architecture, prompt
    self.trainable = tuple(trainable)
    self._num_decodes, self._return_all_decodes = num_decodes, return_all_decodes

  def get_initial_variables(
    self,
    rng: Array,
    input_shapes: Mapping[str, Any],
    input_types: Mapping[str, Any] | None = None,
  ) -> flax.core.FrozenDict:
    """Fresh parameters and their logical axes; no shape depends on the input.

    Raises:
      UserError: a pattern of `trainable` matches no parameter.
    """
    del input_shapes, input_types
    for_backbone, for_prompt = jax.random.split(rng)
    one = jnp.ones((1, 1), jnp.int32)
    backbone = T5(self.architecture).init(for_backbone, one, one)['params']
    prompt: Tree = {}
    constants: Tree = {}
    if self.prompt is not None:
      _, prompt, constants = draw(
        self.prompt,
        for_prompt,
        backbone['token_embedder']['embedding'],
        SeqioVocabulary(self.input_vocabulary),
        self.architecture.sizes,
      )
    params = to_t5x(self.prompt, backbone, prompt, constants)
    self.split(params)
    return flax.core.freeze({'params': params, 'params_axes': logical_axes(params)})

  def split(self, params: Mapping[str, Any]) -> tuple[Tree, Tree]:
    """(what trains, the rest) of a tree with T5X's names; a method's constants never train.

    Raises:
      UserError: a pattern of `trainable` matches no parameter.
    """
    tree = flax.core.unfreeze(dict(params))
    constants = {CONSTANTS: tree.pop(CONSTANTS)} if CONSTANTS in tree else {}
    trainable, frozen = split(tree, self.trainable)
    return trainable, {**frozen, **constants}

  def variables(self, params: Mapping[str, Any]) -> dict[str, Any]:
    """What `module.apply` takes, from a tree with T5X's names."""
    backbone, prompt, constants = from_t5x(self.prompt, params)
    return variables_of({'backbone': backbone, **({'prompt': prompt} if prompt else {})}, constants)

  def loss_fn(
    self, params: Mapping[str, Any], batch: Mapping[str, Array], dropout_rng: Array | None
  ) -> tuple[Array, Any]:
    """T5X's loss plus the method's own, and T5X's metrics.

    T5X differentiates with respect to its whole tree; here the frozen part of that is zero and
    costs nothing.
    """
    trainable, frozen = self.split(params)
    merged = merge(trainable, jax.lax.stop_gradient(frozen))
    logits, aux_loss = self._forward(merged, batch, dropout_rng)
    factor, weights = losses.get_loss_normalizing_factor_and_weights(
      self._loss_normalizing_factor, batch
    )
    targets = batch['decoder_target_tokens']
    loss, z_loss, _ = losses.compute_weighted_cross_entropy(
      logits,
      targets=targets,
      weights=weights,
      label_smoothing=self._label_smoothing,
      z_loss=self._z_loss,
      loss_normalizing_factor=factor,
    )
    if aux_loss.ndim:  # of each target token
      aux_loss = jnp.sum(weights * aux_loss) / (1.0 if factor is None else factor)
    loss = loss + aux_loss
    filled = {name: batch[name] != 0 for name in ('encoder_input_tokens', 'decoder_target_tokens')}
    metrics = self._compute_metrics(
      logits=logits, targets=targets, mask=weights, loss=loss, z_loss=z_loss, segment_ids=filled
    )
    return loss, metrics

  def _compute_logits(
    self,
    params: Mapping[str, Any],
    batch: Mapping[str, Array],
    dropout_rng: Array | None = None,
  ) -> Array:
    return self._forward(params, batch, dropout_rng)[0]

  def _forward(
    self, params: Mapping[str, Any], batch: Mapping[str, Array], dropout_rng: Array | None
  ) -> tuple[Array, Array]:
    """float32[B, U, V] logits by teacher forcing, auxiliary loss, see `PromptedT5`."""
    if 'encoder_segment_ids' in batch:
      raise UserError(
        'The rows are packed, but a prompt needs a place in every example: set '
        'utils.DatasetConfig.pack = False.'
      )
    fields: dict[str, Any] = {name: batch[name] for name in BATCH_FIELDS if name in batch}
    # T5X leaves the weights out where every target counts.
    fields.setdefault(
      'decoder_loss_weights', (batch['decoder_target_tokens'] > 0).astype(jnp.float32)
    )
    return self.module.apply(
      self.variables(params),
      Batch(**fields),
      deterministic=dropout_rng is None,
      train=dropout_rng is not None,
      rngs=None if dropout_rng is None else random_streams(dropout_rng, dropout=True),
    )

  def score_batch(
    self,
    params: Mapping[str, Any],
    batch: Mapping[str, Array],
    return_intermediates: bool = False,
  ) -> Array:
    """float32[B] log-probability of each row's targets, in nats."""
    if return_intermediates:
      raise UserError('A prompted model keeps no intermediates: set return_intermediates = False.')
    log_probs = jax.nn.log_softmax(self._compute_logits(params, batch))
    targets = batch['decoder_target_tokens']
    chosen = jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
    return jnp.sum(chosen * batch.get('decoder_loss_weights', targets > 0), axis=-1)

  def predict_batch_with_aux(
    self,
    params: Mapping[str, Any],
    batch: Mapping[str, Array],
    rng: Array | None = None,
    decoder_params: MutableMapping[str, Any] | None = None,
    return_all_decodes: bool | None = None,
    num_decodes: int | None = None,
    prompt_with_targets: bool = False,
  ) -> tuple[Array, Mapping[str, Array]]:
    """Decodes with T5X's `decode_fn` over our own cache.

    Args:
      params: the tree with T5X's names.
      batch: `encoder_input_tokens` and, for its length, `decoder_input_tokens`.
      rng: for sampling.
      decoder_params: further arguments of `decode_fn`.
      return_all_decodes: overrides the constructor's.
      num_decodes: overrides the constructor's.
      prompt_with_targets: begin every output with the row's `decoder_input_tokens`.

    Returns:
      int32[B, U] tokens and {"scores": float32[B]}; with all decodes int32[B, n, U] and
      float32[B, n], the best one last.
    """
    beams = self._num_decodes if num_decodes is None else num_decodes
    everything = self._return_all_decodes if return_all_decodes is None else return_all_decodes
    given = batch['decoder_input_tokens']
    eos = self.output_vocabulary.eos_id
    # An end of sequence would stop the decoding that it is to begin.
    start = given * (given != eos) if prompt_with_targets else jnp.zeros_like(given)
    decoder = CachedDecoder(
      self.module, self.variables(params), batch['encoder_input_tokens'], given.shape[1], beams
    )
    more = dict(decoder_params or {})
    if rng is not None:
      more['decode_rng'] = rng
    decodes, scores = self.decode_fn(
      inputs=start,
      cache=decoder.cache,
      tokens_to_logits=decoder,
      eos_id=more.pop('eos_id', eos),
      num_decodes=beams,
      cache_offset=1,
      **more,
    )
    if everything:
      return decodes, {'scores': scores}
    return decodes[:, -1], {'scores': scores[:, -1]}
