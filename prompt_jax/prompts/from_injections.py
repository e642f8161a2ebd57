"""Fixed injections as a prompt method: the inverse of `base.materialise` where it has one."""

import numpy as np

from prompt_jax.injections import CAUSAL_PLACEMENTS, Injection, Injections
from prompt_jax.prompts.base import PromptMethod, Tree
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.prompts.tables import Plain


def method_of(injections: Injections) -> tuple[PromptMethod, Tree] | None:
  """The method, and its parameters, that injects these arrays for every input.

  Args:
    injections: plain arrays whose batch axis is 1.

  Returns:
    None where no method injects such arrays: they move embeddings, edit layers, or are both rows
    and keys and values.
  """
  parts = {name: getattr(injections, name) for name in ('encoder', 'decoder', 'cross')}
  if any(part.delta is not None or part.hidden is not None for part in parts.values()):
    return None
  if any(part.inside or part.first_layer or part.head for part in parts.values()):
    return None
  rows = {name: part for name, part in parts.items() if part.prefix is not None}
  keys_values = {name: part for name, part in parts.items() if part.kv is not None}
  if rows and not keys_values:
    return _rows(rows)
  if keys_values and not rows:
    return _keys_values(keys_values)
  return None


def _rows(parts: dict[str, Injection]) -> tuple[PromptMethod, Tree] | None:
  values = {name: np.asarray(part.prefix, np.float32)[0] for name, part in parts.items()}
  lengths = {len(x) for x in values.values()}
  if len(lengths) > 1 or 'cross' in parts:
    return None
  encoder, decoder = parts.get('encoder', Injection()), parts.get('decoder', Injection())
  if decoder.placement not in CAUSAL_PLACEMENTS or not decoder.sees_input:
    # Among the input of a decoder-only model: no decoder beside an encoder has such rows.
    method = InputPrompt(
      length=lengths.pop(),
      table=Plain(),
      placement=decoder.placement,
      sees_input=decoder.sees_input,
    )
    return method, {'decoder': {'prompt': values['decoder']}}
  method = InputPrompt(
    length=lengths.pop(),
    table=Plain(),
    placement=encoder.placement,
    sees_input=encoder.sees_input,
    seen_by=encoder.seen_by,
    encoder='encoder' in parts,
    decoder='decoder' in parts,
    decoder_placement=decoder.placement,  # type: ignore[arg-type]
  )
  return method, {name: {'prompt': x} for name, x in values.items()}


def _keys_values(parts: dict[str, Injection]) -> tuple[PromptMethod, Tree] | None:
  values = {name: np.asarray(part.kv, np.float32)[:, :, 0] for name, part in parts.items()}
  lengths = {x.shape[2] for x in values.values()}
  biases = {part.kv_bias for part in parts.values()}
  if len(lengths) > 1 or len(biases) > 1:
    return None
  method = PrefixTuning(
    length=lengths.pop(),
    table=Plain(),
    encoder='encoder' in parts,
    decoder='decoder' in parts,
    cross='cross' in parts,
    kv_bias=biases.pop(),
  )
  return method, {name: {'prompt': x.reshape(*x.shape[:3], -1)} for name, x in values.items()}
