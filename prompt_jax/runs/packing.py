"""Training batches of packed rows: what the prompt of a run needs of them, or why it cannot be."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax.data.example import Example
from prompt_jax.data.packing import NO_SLOTS, PackedStream, Slots
from prompt_jax.errors import UserError
from prompt_jax.features import Numbers
from prompt_jax.injections import (
  Injection,
  features_of,
  first_tokens,
  is_input_independent,
  keys_by_example,
  prefix_length,
)
from prompt_jax.prompted import Prompted
from prompt_jax.prompted_causal import PromptedCausal, no_packed_rows


@dataclasses.dataclass(frozen=True)
class Packing:
  """Whether and how the examples of a run share rows.

  Attributes:
    on: whether they do; otherwise each has a row of its own, in batches of similar length.
    row_length: most positions of a row.
    look_ahead: examples that a batch may choose from besides the next ones.
  """

  on: bool = False
  row_length: int = 512
  look_ahead: int = 256


def packed_stream(
  model: Prompted,
  variables: dict[str, Any],
  examples: Sequence[Example],
  packing: Packing,
  *,
  batch_size: int,
  seed: int,
  row_multiple: int = 1,
  features: Numbers = types.MappingProxyType({}),
  quota: Mapping[str, int] | None = None,
) -> PackedStream:
  """The stream with the places that the prompt needs.

  Args are those of `PackedStream`.

  Raises:
    UserError: the prompt reads its input, so that it cannot be in a row of several; or an example
      is longer than a row.
  """
  encoder, decoder = slots(model, variables)
  return PackedStream(
    examples,
    batch_size,
    seed=seed,
    row_length=packing.row_length,
    look_ahead=packing.look_ahead,
    encoder=encoder,
    decoder=decoder,
    row_multiple=row_multiple,
    features=features,
    quota=quota,
  )


def slots(model: Prompted, variables: dict[str, Any]) -> tuple[Slots, Slots]:
  """What each example reserves for prompt rows in the encoder and in the decoder.

  Raises:
    UserError: the method reads its input, or the model takes no packed rows.
  """
  if isinstance(model, PromptedCausal):
    raise no_packed_rows()
  features = features_of(model.prompt)
  reads = sorted(model.prompt.depends_on - features) if model.prompt is not None else []
  if reads:
    raise UserError(
      f'{type(model.prompt).__name__} reads {", ".join(reads)} of each input, and a packed row has '
      'several inputs. Train without packing, or take a prompt that is the same for every input.',
      parameters=['pack', 'prompt'],
    )
  tokens = jax.ShapeDtypeStruct((2, 1), jnp.int32)
  call = lambda v, t: model.apply(v, t, first_tokens(model.prompt, t), method='injections')
  injections = jax.eval_shape(call, variables, tokens)
  if keys_by_example(injections):
    raise UserError(
      f'{type(model.prompt).__name__} gives each example keys and values by its '
      f'{", ".join(sorted(features))}, and the examples of a packed row share theirs. Train '
      'without packing, or take a method whose rows stand among the tokens.',
      parameters=['pack', 'prompt'],
    )
  if injections.encoder.delta is not None or injections.decoder.delta is not None:
    raise UserError(
      f'{type(model.prompt).__name__} adds to the tokens by their position in an input, and a '
      'packed row has several inputs. Train without packing.',
      parameters=['pack'],
    )
  return _slots(injections.encoder), _slots(injections.decoder)


def _slots(injection: Injection) -> Slots:
  if is_input_independent(injection):
    return NO_SLOTS
  return Slots(prefix_length(injection), injection.placement)
