"""`prompt-jax export`: a prompt file in the form of another library."""

import argparse
import os
import pathlib
from typing import cast

from rich.console import Console

from prompt_jax.checkpoints.foreign import DecoderKeysValues, Rows, plain
from prompt_jax.checkpoints.merged_t5x import merged, write_merged
from prompt_jax.checkpoints.npy import numpy_checkpoint_path, write_npy
from prompt_jax.checkpoints.peft import write_peft
from prompt_jax.cli import tuned
from prompt_jax.errors import UserError
from prompt_jax.evaluation.report import progress
from prompt_jax.injections import Placement
from prompt_jax.prompts.base import PromptMethod, materialise

# What google-research/prompt-tuning calls the placements, in its gin files.
COMBINE: dict[Placement, str] = {
  'before': 'prefix_prompt',
  'after_bos': 'prefix_prompt_after_bos',
  'before_eos': 'suffix_prompt',
  'after_eos': 'suffix_prompt with before_eos = False',
}


def run(args: argparse.Namespace) -> None:
  if args.base_model and args.to != 'peft':
    raise UserError('--base_model is what PEFT calls the model; it goes with --to=peft only.')
  console = Console()
  place = pathlib.Path(args.destination)
  ready = tuned.load(args.model, args.file, 'float32', args.vocabulary)
  prompt = _plain(ready, args.file)
  step = ready.metadata.get('step') or 0
  if args.to == 'peft':
    _refuse_existing(place)
    config = ready.backbone.config
    name = args.base_model or ready.metadata['base_model']
    write_peft(
      place, prompt, base_model=name, layers=config.num_decoder_layers, heads=config.num_heads
    )
    console.print(f'PEFT folder: {place}', soft_wrap=True, highlight=False)
    return
  if not isinstance(prompt, Rows):
    raise UserError(
      f'{args.file!r} holds keys and values; --to={args.to} knows only rows before the input. Use '
      '--to=peft.'
    )
  if args.to == 't5x':
    place = place / f'checkpoint_{step}'
    _refuse_existing(place)
    _merge(ready, prompt, place, step, console)
  else:
    place = numpy_checkpoint_path(place, step) if args.to == 'numpy_checkpoints' else place
    _refuse_existing(place)
    write_npy(place, prompt)
  console.print(f'{args.to}: {place}', soft_wrap=True, highlight=False)
  if prompt.placement != 'before':
    console.print(
      f'The file does not say where the rows go ({prompt.placement}). In google-research/'
      f'prompt-tuning: combine = {COMBINE[prompt.placement]}; here: import --placement.',
      soft_wrap=True, highlight=False,
    )  # fmt: skip


def _plain(ready: tuned.Tuned, file: str) -> Rows | DecoderKeysValues:
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
    encoder=config.encoder_dims,
    decoder=config.decoder_dims,
  )
  return plain(injections, type(method).__name__)


def _merge(
  ready: tuned.Tuned, prompt: Rows, place: pathlib.Path, step: int, console: Console
) -> None:
  arrays = merged(ready.backbone.params, prompt.values)
  with progress(len(arrays), 'arrays', console) as advance:
    write_merged(place, arrays, step, advance)


def _refuse_existing(place: pathlib.Path) -> None:
  if os.path.isdir(place) and not any(place.iterdir()):
    return
  if os.path.exists(place):
    raise UserError(f'{str(place)!r} exists already. Give another name, or remove it first.')
