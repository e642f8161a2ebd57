"""A prompt's first parameters, made against the frozen embedding table."""

import dataclasses
import functools
import warnings
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.injections import Dims, Injections
from prompt_jax.prompts.base import PromptMethod, Tree, placeholder
from prompt_jax.prompts.initializers import Initializer, Uniform, Vocabulary

Array = jax.Array
# How many times longer or shorter than an embedding a first prompt row may be without a warning.
NORM_RATIO = 5.0


class Prompted(Protocol):
  """A model with a prompt, such as `prompted.PromptedT5`."""

  backbone: Any  # has cfg.encoder_dims and cfg.decoder_dims
  prompt: Any


def initialise_prompt(
  model: Prompted, key: Array, embedding: Any, vocabulary: Vocabulary | None
) -> tuple[Tree, Tree]:
  """`initialise` for the prompt of a model; ({}, {}) for a model without one."""
  if model.prompt is None:
    return {}, {}
  cfg = model.backbone.cfg
  return initialise(
    model.prompt, key, embedding, vocabulary, encoder=cfg.encoder_dims, decoder=cfg.decoder_dims
  )


def initialise(
  method: PromptMethod,
  key: Array,
  embedding: Any,
  vocabulary: Vocabulary | None,
  *,
  encoder: Dims,
  decoder: Dims,
) -> tuple[Tree, Tree]:
  """Evaluates the initialisers that a method and its tables hold.

  Warns if the prompt rows are on average more than 5 times as long as embedding rows, or less than
  a fifth: prompts that start far from the scale of the vocabulary train slowly or not at all.

  Args:
    method: the method.
    key: PRNG key.
    embedding: [V, H] the frozen embedding table.
    vocabulary: whose ids index the table; None if the initialisers need none.
    encoder: sizes of the encoder.
    decoder: sizes of the decoder.

  Returns:
    The `params` and `constants` of the method, float32.

  Raises:
    UserError: an initialiser cannot make what is asked of it.
  """
  injections, params, constants = draw(
    method, key, embedding, vocabulary, encoder=encoder, decoder=decoder
  )
  _warn_of_norms(injections, embedding, vocabulary)
  return params, constants


def draw(
  method: PromptMethod,
  key: Array,
  embedding: Any,
  vocabulary: Vocabulary | None,
  *,
  encoder: Dims,
  decoder: Dims,
) -> tuple[Injections, Tree, Tree]:
  """What `initialise` draws, without its warning; pure, so that it may be traced.

  Args:
    method: as in `initialise`, and so are the rest.
    key: PRNG key.
    embedding: [V, H] the frozen embedding table.
    vocabulary: whose ids index the table.
    encoder: sizes of the encoder.
    decoder: sizes of the decoder.

  Returns:
    What the method first injects, and its `params` and `constants`.
  """
  bound = _bind(method, embedding, vocabulary)
  injections, variables = bound.init_with_output(key, placeholder(encoder, decoder))
  return injections, variables.get('params', {}), variables.get('constants', {})


def _bind(module: nn.Module, embedding: Any, vocabulary: Vocabulary | None) -> nn.Module:
  """`module` with the table and vocabulary supplied to every initialiser in it."""
  changes: dict[str, Any] = {}
  for field in dataclasses.fields(module):
    value = None if field.name == 'parent' else getattr(module, field.name)
    if isinstance(value, nn.Module):
      changes[field.name] = _bind(value, embedding, vocabulary)
    elif isinstance(value, Initializer):
      changes[field.name] = functools.partial(value, embedding=embedding, vocabulary=vocabulary)
  return module.clone(**changes)


def without_initializers(module: nn.Module) -> nn.Module:
  """`module` with one and the same initialiser everywhere.

  It computes the same from the same parameters, and models that differ in how their prompts began
  are then equal, so that they can be trained together.
  """
  changes: dict[str, Any] = {}
  for field in dataclasses.fields(module):
    value = None if field.name == 'parent' else getattr(module, field.name)
    if isinstance(value, nn.Module):
      changes[field.name] = without_initializers(value)
    elif isinstance(value, Initializer):
      changes[field.name] = Uniform()
  return module.clone(**changes)


def _warn_of_norms(injections: Any, embedding: Any, vocabulary: Vocabulary | None) -> None:
  """Compares the mean length of rows among the embeddings with that of embedding rows."""
  rows = embedding if vocabulary is None else embedding[: vocabulary.size]
  usual = _mean_norm(rows)
  for name in ('encoder', 'decoder'):
    prefix = getattr(injections, name).prefix
    if prefix is None:
      continue
    first = _mean_norm(prefix)
    if not usual / NORM_RATIO <= first <= usual * NORM_RATIO:
      warnings.warn(
        f"The {name}'s prompt rows start with mean norm {first:.3g}, the embedding rows have "
        f'{usual:.3g}: such a prompt may train slowly. SampledVocabulary starts at their scale.',
        stacklevel=4,
      )


def _mean_norm(rows: Any) -> float:
  return float(jnp.mean(jnp.linalg.norm(jnp.asarray(rows, jnp.float32), axis=-1)))
