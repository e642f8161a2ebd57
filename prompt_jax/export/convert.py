"""A frozen model in another form, and the proof that it is the same model."""

import pathlib

import numpy as np
from rich.console import Console

from prompt_jax import byte_size
from prompt_jax.checkpoints.backbone import find
from prompt_jax.checkpoints.formats.huggingface import config_to_huggingface
from prompt_jax.errors import UserError, unknown
from prompt_jax.evaluation.predictions import progress_bar
from prompt_jax.export import model as forms
from prompt_jax.models.module import only_t5
from prompt_jax.models.t5.config import T5Config
from prompt_jax.runtime.devices import choose_device

DTYPES = ('float32', 'bfloat16')
VERIFY = ('logits', 'values')
TOLERANCE = 1e-4


def convert(
  source: str,
  dest: str,
  *,
  to: str,
  vocabulary: str | None,
  architecture: T5Config | None,
  dtype: str | None,
  verify: str,
  device: str,
  console: Console | None = None,
) -> None:
  """Writes the model beside its place, compares it with its source, and then moves it there.

  Args:
    source: see `backbone.find`.
    dest: a folder that does not exist yet.
    to: see `export.model.FORMS`.
    vocabulary: see `backbone.find`.
    architecture: see `backbone.find`.
    dtype: of what is written; None keeps each array's own.
    verify: "logits" also computes those of a fixed input from both, which loads each model whole;
      "values" compares names, shapes and checksums only.
    device: where logits are computed, see `runtime.devices`.
    console: where to print; None is silent.
  """
  for what, value, known in (('to', to, forms.FORMS), ('verify', verify, VERIFY)):
    if value not in known:
      raise unknown(f'value of {what}', str(value), known, parameters=[what])
  if dtype not in (None, *DTYPES):
    raise unknown('value of dtype', dtype, DTYPES, parameters=['dtype'])
  choose_device(device)
  console, folder = console or Console(quiet=True), pathlib.Path(dest)
  found = find(source, vocabulary, architecture)
  model = forms.listed(found, dtype)
  if to != 'native':
    only_t5(model.config, f'The format of {forms.FORMS[to]}')
  if to == 'hf':
    config_to_huggingface(model.t5)  # refuses what Hugging Face does not have
  forms.check_place(folder, model.size)
  with forms.appearing(folder) as partial:
    title = f'{found.form} to {forms.FORMS[to]}'
    with progress_bar(2 * len(model.leaves), title, console) as advance:
      sums = forms.write(partial, to, model, advance)
      written = forms.reopen(partial, to, model)
      forms.compare_values(written, sums, advance)
    same = f'{len(sums)} arrays read back with the same shapes and checksums'
    if verify == 'logits':
      difference = _difference(model, written)
      same += f'; logits differ by {difference:.1g}' if difference else '; the same logits'
  console.print(f'{model.name}: {title}, {byte_size.written(model.size)}', highlight=False)
  console.print(f'Verified: {same}.', soft_wrap=True, highlight=False)
  if to == 't5x':
    _print_what_is_lost(model, folder, console)
  console.print(f'Model: {folder}', soft_wrap=True, highlight=False)


def _difference(model: forms.Model, written: forms.Model) -> float:
  before, after = forms.logits(model), forms.logits(written)
  difference = float(np.max(np.abs(before - after)))
  if not difference <= TOLERANCE:
    raise UserError(
      f'The model that was written gives logits that differ by {difference:.2g}; expected at most '
      f'{TOLERANCE}. It was removed.'
    )
  return difference


def _print_what_is_lost(model: forms.Model, folder: pathlib.Path, console: Console) -> None:
  """What a T5X checkpoint does not hold and its reader must be told."""
  lost = forms.not_in_shapes(model, folder)
  if lost:
    console.print(
      f'Its shapes do not tell {", ".join(lost)}: to read it, give its architecture.',
      soft_wrap=True,
      markup=False,
    )
