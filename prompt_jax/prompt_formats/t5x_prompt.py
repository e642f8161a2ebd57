"""The prompt inside a whole checkpoint of T5X, as google-research/prompt-tuning has it.

T5X restores one tree; its models with a prompt have the rows at `encoder/prompt/prompt/prompt`,
between the encoder's other parameters, and the trainer inside T5X puts them there too. Reading the
prompt reads nothing of the model but what one msgpack file holds with it.
"""

import numpy as np

from prompt_jax.checkpoints.backbone import combine, leaf_digests
from prompt_jax.checkpoints.formats.t5x import from_t5x, is_prompt
from prompt_jax.checkpoints.formats.t5x_checkpoint import open_checkpoint
from prompt_jax.checkpoints.leaf import Leaves
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from prompt_jax.prompt_formats.foreign import PARAMETER, Found, Rows, checked

NAME = '/'.join(PARAMETER)
STEP = 'state/step'
# Where the trainer inside T5X has the parameters of every other method.
METHOD = ('prompt/', 'prompt_constants/')
SHOWN = 5


def read_t5x(place: str) -> Found:
  """The rows of prompt tuning [P, H].

  Args:
    place: see `open_checkpoint`.

  Raises:
    UserError: there is no such checkpoint, it is damaged, or holds no such prompt; what it holds
      instead is listed.
  """
  checkpoint = open_checkpoint(place, (STEP, *(f'target/{name}' for name in (NAME, *METHOD))))
  found, step = checkpoint.target, _step(checkpoint.leaves)
  if found.keys() != {NAME}:
    raise UserError(_other(checkpoint.where, step, found or open_checkpoint(place).target))
  where = f'{checkpoint.where}: {NAME}'
  rows = Rows(checked(found[NAME].read(), where, (None, None)))
  return Found(prompt=rows, form=f'T5X, {checkpoint.form}', path=where, step=step)


def base_fingerprint(place: str, config: T5Config) -> str | None:
  """The fingerprint of the model in a checkpoint; None where that holds a prompt only.

  Args:
    place: see `open_checkpoint`.
    config: the architecture that it is expected to have.

  Raises:
    UserError: it has another one (both trees are listed), or is damaged.
  """
  checkpoint = open_checkpoint(place)
  model = {name: leaf for name, leaf in checkpoint.target.items() if not is_prompt(name)}
  if not model:
    return None
  _, leaves = from_t5x(model, checkpoint.where, config)
  digests: dict[str, bytes] = {}
  for path in sorted(leaves):
    digests |= leaf_digests(path, leaves[path].read('float32'))
  return combine(digests)


def _step(leaves: Leaves) -> int | None:
  if STEP not in leaves:
    return None
  # Not `read`, which takes floats only.
  step = np.empty(leaves[STEP].shape, leaves[STEP].dtype)
  leaves[STEP].fill(step)
  return int(step)


def _other(where: str, step: int | None, found: Leaves) -> str:
  """What is there in place of rows before the encoder's input."""
  prompts = [path for path in sorted(found) if is_prompt(path)]
  shown = prompts or sorted(found)
  listed = ', '.join(f'{path} {list(found[path].shape)}' for path in shown[:SHOWN])
  listed += f' and {len(shown) - SHOWN} more' if len(shown) > SHOWN else ''
  if not prompts:
    return (
      f'{where} holds a model and no prompt: {listed}. A prompt would be at {NAME}; give the '
      'checkpoint of a run that trained one.'
    )
  if any(path.startswith(METHOD) for path in prompts):
    return (
      f'{where} holds a prompt whose method is not in the checkpoint: {listed}. Its run wrote a '
      f'prompt file, which says it: prompts/checkpoint_{step}.safetensors beside the checkpoint. '
      'Use that as it is.'
    )
  return (
    f"{where} holds {listed}; expected {NAME}, rows before the encoder's input. Prompts of every "
    'layer and of several tasks cannot be imported.'
  )
