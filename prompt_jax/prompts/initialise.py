"""A prompt's first parameters, made against the frozen embedding table."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from prompt_jax.errors import UserError
from prompt_jax.injections import Injections, Sizes
from prompt_jax.prompts.base import PromptMethod, Tree, first_values
from prompt_jax.prompts.initializers import Initializer, Uniform, Vocabulary

Array = jax.Array
M = TypeVar('M', bound=nn.Module)
# How many times longer or shorter than an embedding a first prompt row may be without a warning.
NORM_RATIO = 5.0


class Prompted(Protocol):
  """A model with a prompt, such as `prompted.PromptedT5`."""

  backbone: Any  # has cfg.sizes
  prompt: Any


def initialise_prompt(
  model: Prompted, key: Array, embedding: Any, vocabulary: Vocabulary | None
) -> tuple[Tree, Tree]:
  """`initialise` for the prompt of a model; ({}, {}) for a model without one."""
  if model.prompt is None:
    return {}, {}
  return initialise(model.prompt, key, embedding, vocabulary, model.backbone.cfg.sizes)


def initialise(
  method: PromptMethod,
  key: Array,
  embedding: Any,
  vocabulary: Vocabulary | None,
  sizes: Sizes,
) -> tuple[Tree, Tree]:
  """Evaluates the initialisers that a method and its tables hold.

  Warns if the prompt rows are on average more than 5 times as long as embedding rows, or less than
  a fifth: prompts that start far from the scale of the vocabulary train slowly or not at all.

  Args:
    method: the method.
    key: PRNG key.
    embedding: [V, H] the frozen embedding table.
    vocabulary: whose ids index the table; None if the initialisers need none.
    sizes: of the model.

  Returns:
    The `params` and `constants` of the method, float32.

  Raises:
    UserError: an initialiser cannot make what is asked of it.
  """
  injections, params, constants = draw(method, key, embedding, vocabulary, sizes)
  _warn_of_norms(injections, embedding, vocabulary)
  return params, constants


def draw(
  method: PromptMethod,
  key: Array,
  embedding: Any,
  vocabulary: Vocabulary | None,
  sizes: Sizes,
) -> tuple[Injections, Tree, Tree]:
  """What `initialise` draws, without its warning; pure, so that it may be traced.

  Returns:
    What the method first injects, and its `params` and `constants`.
  """

  def with_table(value: Any) -> Any:
    if not isinstance(value, Initializer):
      return value
    return functools.partial(value, embedding=embedding, vocabulary=vocabulary)

  injections, variables = first_values(map_fields(method, with_table), key, sizes)
  return injections, variables.get('params', {}), variables.get('constants', {})


def check_parameters(
  method: PromptMethod, params: Mapping[str, Any], sizes: Sizes, path: str, model: str
) -> None:
  """Refuses parameters of a method that are not of a model's sizes.

  Args:
    method: the method.
    params: its parameters by path, such as "encoder/prompt".
    sizes: of the model.
    path: where they were read, for messages.
    model: its name, for messages.

  Raises:
    UserError: some are missing, or of another shape.
  """
  made = jax.eval_shape(lambda key: first_values(method, key, sizes)[1], jax.random.key(0))
  expected = {n: leaf.shape for n, leaf in flatten_dict(made['params'], sep='/').items()}
  if missing := expected.keys() - params.keys():
    raise UserError(f'{path!r} has nothing for {", ".join(sorted(missing))}. Copy it again.')
  for name, value in params.items():
    if value.shape != expected.get(name):
      raise UserError(
        f'{path!r} gives {list(value.shape)} for {name}; the model {model!r} takes '
        f'{list(expected.get(name, ()))}. Give the model that the adapter was trained on.'
      )


def map_fields(module: M, change: Callable[[Any], Any]) -> M:
  """`module` with `change` of each of its fields, and of those of the modules that it holds."""
  changes: dict[str, Any] = {}
  for field in dataclasses.fields(module):
    if field.name == 'parent':
      continue
    value = getattr(module, field.name)
    changes[field.name] = (
      map_fields(value, change) if isinstance(value, nn.Module) else change(value)
    )
  return module.clone(**changes)


def without_initializers(module: M) -> M:
  """`module` with one and the same initialiser everywhere.

  It computes the same from the same parameters, and models that differ in how their prompts began
  are then equal, so that they can be trained in one program.
  """
  return map_fields(module, lambda value: Uniform() if isinstance(value, Initializer) else value)


def with_labels(module: M, labels: Sequence[str]) -> M:
  """`module` with a task's labels in the initialisers that want them and have none."""
  return map_fields(
    module, lambda value: value.for_labels(labels) if isinstance(value, Initializer) else value
  )


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
