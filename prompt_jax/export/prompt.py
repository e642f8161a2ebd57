"""`prompt-jax export`: a prompt file in the form of another library."""

import dataclasses
import os
import pathlib
from typing import cast

from rich.console import Console

from prompt_jax import loading
from prompt_jax.checkpoints.backbone import EMBEDDED, find, whole_path
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError
from prompt_jax.evaluation.predictions import progress_bar
from prompt_jax.export.merged_t5x import merged, write_merged
from prompt_jax.injections import Placement
from prompt_jax.prompt_formats.foreign import DecoderKeysValues, Rows, plain
from prompt_jax.prompt_formats.npy import numpy_checkpoint_path, write_npy
from prompt_jax.prompt_formats.peft import write_peft
from prompt_jax.prompts.base import PromptMethod, materialise

# What google-research/prompt-tuning calls the placements, in its gin files.
COMBINE: dict[Placement, str] = {
  'before': 'prefix_prompt',
  'after_bos': 'prefix_prompt_after_bos',
  'before_eos': 'suffix_prompt',
  'after_eos': 'suffix_prompt with before_eos = False',
}


README = 'README.md'


@dataclasses.dataclass(frozen=True)
class Exported:
  """What `export_prompt` wrote.

  Attributes:
    path: the file or folder.
    placement: where the rows go, which the file itself does not say; None for a form that does.
    base: how to get the base model where the other library cannot open it by its name; None where
      it can.
  """

  path: pathlib.Path
  placement: Placement | None = None
  base: str | None = None

  @property
  def combine(self) -> str | None:
    """What google-research/prompt-tuning calls the placement, where it is not the default one."""
    return None if self.placement in (None, 'before') else COMBINE[self.placement]


def export_prompt(
  file: str,
  destination: str,
  to: str,
  *,
  model: str | None = None,
  vocabulary: str | None = None,
  base_model: str | None = None,
  console: Console | None = None,
) -> Exported:
  """Writes a prompt file in the form of another library.

  Args:
    file: the prompt file.
    destination: the file or folder to write, which does not exist yet.
    to: "npy", "numpy_checkpoints", "t5x" or "peft".
    model: the model it was tuned on; None for the recorded one.
    vocabulary: see `load_backbone`.
    base_model: what PEFT calls the model; None for its folder or name on the hub, if it is one of
      Hugging Face, else for the recorded name.
    console: where the progress of a large file is shown; None for nowhere.

  Returns:
    What was written.

  Raises:
    UserError: the form cannot hold such a prompt, or the destination exists.
  """
  if base_model and to != 'peft':
    raise UserError(
      f'base_model is what PEFT calls the model; it goes with the format "peft", not with {to!r}.',
      ['base_model'],
    )
  place = pathlib.Path(destination)
  ready = loading.load(model, file, 'float32', vocabulary)
  prompt = _plain(ready, file)
  step = ready.metadata.get('step') or 0
  if to == 'peft':
    _refuse_existing(place)
    config = ready.backbone.config
    name, base = (base_model, None) if base_model else _peft_base(model, ready)
    write_peft(
      place, prompt, base_model=name, layers=config.num_decoder_layers, heads=config.num_heads
    )
    if base:
      write_atomically(place / README, f'{base}\n'.encode())
    return Exported(place, base=base)
  if not isinstance(prompt, Rows):
    raise UserError(
      f'{file!r} holds keys and values; the format {to!r} knows only rows before the input. Use '
      '"peft".',
      ['to'],
    )
  if to == 't5x':
    place = place / f'checkpoint_{step}'
    _refuse_existing(place)
    _merge(ready, prompt, place, step, console or Console(quiet=True))
  else:
    place = numpy_checkpoint_path(place, step) if to == 'numpy_checkpoints' else place
    _refuse_existing(place)
    write_npy(place, prompt)
  return Exported(place, prompt.placement)


def _peft_base(model: str | None, ready: loading.Tuned) -> tuple[str, str | None]:
  """What PEFT is to call the model, and how to get it where it is not one of Hugging Face."""
  name = model or ready.metadata.get('model') or EMBEDDED
  if find(name).form == 'Hugging Face':
    return whole_path(name), None
  called = ready.metadata['base_model']
  return called, (
    f'The base model is {called!r} of prompt_jax (fingerprint {ready.backbone.fingerprint}), which '
    f'PEFT cannot open by that name. Write it for transformers with `prompt-jax convert {name} '
    'base/ --to hf`, and open the prompt with '
    '`PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained("base/"), FOLDER)`.'
  )


def _plain(ready: loading.Tuned, file: str) -> Rows | DecoderKeysValues:
  """The numbers of the prompt, as far as another library can use them."""
  method, config = ready.model.prompt, ready.backbone.config
  if method is None:
    raise UserError(
      f'{file!r} holds weights of the model, not a prompt; there is nothing to export.'
    )
  injections = materialise(
    cast(PromptMethod, method),
    ready.variables['params']['prompt'],
    ready.variables['constants'].get('prompt', {}),
    config.sizes,
  )
  return plain(injections, type(method).__name__)


def _merge(
  ready: loading.Tuned, prompt: Rows, place: pathlib.Path, step: int, console: Console
) -> None:
  arrays = merged(ready.backbone.params, prompt.values)
  with progress_bar(len(arrays), 'arrays', console) as advance:
    write_merged(place, arrays, step, advance)


def _refuse_existing(place: pathlib.Path) -> None:
  if os.path.isdir(place) and not any(place.iterdir()):
    return
  if os.path.exists(place):
    raise UserError(f'{str(place)!r} exists already. Give another name, or remove it first.')
