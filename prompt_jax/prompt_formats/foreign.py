"""What a prompt of another library can say, and where it is read from.

Files of google-research/prompt-tuning and folders of PEFT know two kinds of prompts: rows among
the encoder's token embeddings, and keys and values in front of the decoder's own. Everything else
that a method may inject stays with the prompt files of this package.
"""

import dataclasses
import os
from typing import Any

import numpy as np

from prompt_jax.errors import UserError
from prompt_jax.injections import Injection, Injections, Placement

# Where google-research/prompt-tuning has the rows, in T5X's tree of parameters.
PARAMETER = ('encoder', 'prompt', 'prompt', 'prompt')


@dataclasses.dataclass(frozen=True)
class Rows:
  """Prompt tuning: rows among the encoder's token embeddings.

  Attributes:
    values: float32[P, H].
    placement: where the rows go.
  """

  values: np.ndarray
  placement: Placement = 'before'

  def injections(self) -> Injections:
    prefix: Any = self.values[None]
    return Injections(encoder=Injection(prefix=prefix, placement=self.placement))


@dataclasses.dataclass(frozen=True)
class DecoderKeysValues:
  """Prefix tuning of the decoder's self attention, the keys at positions -P..-1.

  Attributes:
    values: float32[L, 2, P, N, D] keys and values of each of the decoder's layers.
  """

  values: np.ndarray

  def injections(self) -> Injections:
    kv: Any = self.values[:, :, None]
    return Injections(decoder=Injection(kv=kv, kv_bias='shifted'))


@dataclasses.dataclass(frozen=True)
class Trained:
  """A method that PEFT knows as one, with its parameters: LoRA, (IA)^3, multitask prompts.

  Attributes:
    method: a `PromptMethod`.
    params: its parameters by path, such as "encoder/prompt", float32.
  """

  method: Any
  params: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Found:
  """A prompt as another library left it.

  Attributes:
    prompt: its numbers.
    form: what wrote it, for the metadata: "npy", "PEFT P_TUNING", ...
    path: the file that holds the numbers.
    step: of its training; None where nothing says.
    base_model: what its metadata call the model; None where nothing says.
  """

  prompt: Rows | DecoderKeysValues | Trained
  form: str
  path: str
  step: int | None = None
  base_model: str | None = None


_KEEP = (
  'no other library reads such a prompt. Its formats take rows before the input of the encoder, in '
  'whichever way they were parametrized, and keys and values of the decoder alone; "stablehlo" and '
  '"savedmodel" take it, with its model.'
)


# Fields of an injection that no other library knows of.
_OTHERWISE = (
  ('delta', 'moves token embeddings'),
  ('hidden', 'edits every layer'),
  ('inside', 'edits the layers'),
  ('head', 'changes the logits'),
)


def plain(injections: Injections, method: str, remedy: str = _KEEP) -> Rows | DecoderKeysValues:
  """A materialised prompt as one of the two kinds; arguments and errors as `check_plain`."""
  check_plain(injections, method, remedy)
  encoder, decoder = injections.encoder, injections.decoder
  if encoder.prefix is not None:
    return Rows(np.asarray(encoder.prefix[0], np.float32), encoder.placement)
  assert decoder.kv is not None
  return DecoderKeysValues(np.asarray(decoder.kv[:, :, 0], np.float32))


def check_plain(injections: Injections, method: str, remedy: str = _KEEP) -> None:
  """Refuses a prompt that other software has no form for.

  Args:
    injections: arrays, the batch axis 1, or their shapes.
    method: name of the prompt's method, for messages.
    remedy: what to do with a prompt that is neither.

  Raises:
    UserError: the prompt is neither rows nor keys and values of the decoder alone.
  """
  other = lambda what: UserError(f'{method} {what}: {remedy}')
  encoder, decoder, cross = injections.encoder, injections.decoder, injections.cross
  for name, injection in (('encoder', encoder), ('decoder', decoder), ('cross', cross)):
    for field, what in _OTHERWISE:
      found = getattr(injection, field)
      if found is not None and not (field == 'inside' and not found):
        raise other(f'{what} of the {name}')
  if decoder.prefix is not None:
    raise other("puts rows before the decoder's input")
  for name, injection in (('encoder', encoder), ('cross', cross)):
    if injection.kv is not None:
      where = 'self attention of the encoder' if name == 'encoder' else 'cross attention'
      raise other(f'adds keys and values to the {where}')
  if encoder.prefix is not None and decoder.kv is not None:
    raise other('has both rows and keys and values')
  if encoder.prefix is not None:
    if not encoder.sees_input:
      raise other('has sees_input=False, elsewhere prompt rows attend to the input')
    if encoder.seen_by != 'all':
      raise other(f'has seen_by={encoder.seen_by!r}, elsewhere all tokens attend to prompt rows')
    return
  if decoder.kv is None:
    raise other('adds nothing')
  if decoder.kv_bias != 'shifted':
    raise other(
      f'has kv_bias={decoder.kv_bias!r}, elsewhere added keys are at positions -P..-1 '
      '(kv_bias="shifted"), and weights of one are useless with the other',
    )


def checked(values: Any, path: str | os.PathLike, shape: tuple[int | None, ...]) -> np.ndarray:
  """An array of a foreign file as float32, if it is finite numbers of the wanted shape.

  Args:
    values: as read.
    path: where, for messages.
    shape: the size of each axis; None for any of at least 1.

  Raises:
    UserError: it is not.
  """
  values = np.asarray(values)
  sizes = [list(values.shape), ['any' if n is None else n for n in shape]]
  if values.ndim != len(shape) or any(
    n < 1 or want not in (None, n) for n, want in zip(values.shape, shape, strict=True)
  ):
    raise UserError(
      f'{str(path)!r} holds an array of shape {sizes[0]}; expected '
      f'[{", ".join(map(str, sizes[1]))}]. Give the file of one prompt.'
    )
  if not (np.issubdtype(values.dtype, np.floating) or values.dtype.name == 'bfloat16'):
    raise UserError(
      f'{str(path)!r} holds {values.dtype}; expected floating point numbers. Give the file of one '
      'prompt.'
    )
  numbers = values.astype(np.float32)
  bad = np.argwhere(~np.isfinite(numbers))
  if len(bad):
    raise UserError(
      f'{str(path)!r} is not finite: {len(bad)} values, the first at {bad[0].tolist()}. The '
      'training that wrote it diverged; give the prompt of an earlier step.'
    )
  return numbers
