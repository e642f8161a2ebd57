"""`prompt-jax export`: prompts in the form of another library."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Sequence

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from rich.console import Console

from prompt_jax import loading
from prompt_jax.checkpoints.backbone import EMBEDDED, find, whole_path
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError, unknown
from prompt_jax.evaluation.predictions import progress_bar
from prompt_jax.export import manifest
from prompt_jax.export.check import SAMPLES
from prompt_jax.export.merged_t5x import merged, write_merged
from prompt_jax.export.model import appearing, check_place
from prompt_jax.export.served import FORMATS as SERVED
from prompt_jax.export.served import LEAST_AGREEMENT, export_served
from prompt_jax.injections import TASK, Placement, features_of
from prompt_jax.models.module import only_t5
from prompt_jax.named_prompts import find_prompts
from prompt_jax.prompt_formats.foreign import DecoderKeysValues, Found, Rows, Trained, plain
from prompt_jax.prompt_formats.npy import numpy_checkpoint_path, read_npy, write_npy
from prompt_jax.prompt_formats.peft import read_peft, write_peft
from prompt_jax.prompt_formats.peft_layers import METHODS
from prompt_jax.prompt_formats.peft_multitask import METHOD as MULTITASK

# What google-research/prompt-tuning calls the placements, in its gin files.
COMBINE: dict[Placement, str] = {
  'before': 'prefix_prompt',
  'after_bos': 'prefix_prompt_after_bos',
  'before_eos': 'suffix_prompt',
  'after_eos': 'suffix_prompt with before_eos = False',
}


README = 'README.md'
Foreign = Rows | DecoderKeysValues | Trained
FORMATS = ('npy', 'numpy_checkpoints', 't5x', 'peft', *SERVED)


@dataclasses.dataclass(frozen=True)
class Exported:
  """What `export_prompt` wrote.

  Attributes:
    path: the file or folder.
    placement: where the rows go, which the file itself does not say; None for a form that does.
    base: how to get the base model where the other library cannot open it by its name; None where
      it can.
    prompts: names of the prompts in a folder of several, or of a format with the model.
  """

  path: pathlib.Path
  placement: Placement | None = None
  base: str | None = None
  prompts: tuple[str, ...] = ()

  @property
  def combine(self) -> str | None:
    """What google-research/prompt-tuning calls the placement, where it is not the default one."""
    return None if self.placement in (None, 'before') else COMBINE[self.placement]


def export_prompt(
  file: str | os.PathLike | Sequence[str | os.PathLike],
  destination: str | os.PathLike,
  to: str,
  *,
  names: Sequence[str] | None = None,
  model: str | None = None,
  vocabulary: str | None = None,
  base_model: str | None = None,
  quantize: str | None = None,
  samples: Sequence[str] | None = None,
  least_agreement: float = LEAST_AGREEMENT,
  console: Console | None = None,
) -> Exported:
  """Writes prompts in the form of another library.

  Args:
    file: a prompt file, or a folder of a run or of several, or several of these, see
      `named_prompts.find_prompts`. Without the model, several prompts are written into one folder,
      each under its name.
    destination: the file or folder to write, which does not exist yet.
    to: "npy", "numpy_checkpoints", "t5x" or "peft"; for the model with all prompts, with which
      software of that format answers like `infer`, "hf", "ctranslate2", "stablehlo" or
      "savedmodel".
    names: of the prompts; None for those of the files.
    model: the model they were tuned on; None for the recorded one.
    vocabulary: see `load_backbone`.
    base_model: what PEFT calls the model; None for its folder or name on the hub, if it is one of
      Hugging Face, else for the recorded name.
    quantize: numbers of "ctranslate2", see `ctranslate2_model.QUANTIZE`; None for float32.
    samples: texts on which formats with the model are compared with `infer`; None for some of all
      kinds.
    least_agreement: share of equal answers on these that a quantised export must have.
    console: where progress, and what was compared, is shown; None for nowhere.

  Returns:
    What was written.

  Raises:
    UserError: the form cannot hold such a prompt, the destination exists, or what was written does
      not answer like `infer`.
  """
  _check_options(to, base_model, quantize, samples, least_agreement)
  given = [os.fspath(f) for f in ([file] if isinstance(file, str | os.PathLike) else file)]
  found, place = find_prompts(given, names), pathlib.Path(destination)
  base = loading.BaseModel(model, vocabulary, 'float32')
  console = console or Console(quiet=True)
  if to in SERVED:
    prompts = export_served(
      found, place, to, base,
      quantize=quantize, samples=samples or SAMPLES, least_agreement=least_agreement,
      console=console,
    )  # fmt: skip
    return Exported(place, prompts=tuple(p.name for p in prompts))
  ready = loading.load_all(base, [f.file for f in found], None)
  if len(found) == 1 and not os.path.isdir(given[0]):
    return _write(ready[0], found[0].file, place, to, model, base_model, console)
  check_place(place, 0)
  with appearing(place) as partial:
    about = []
    for (name, path), tuned in zip(found, ready, strict=True):
      own = partial / (f'{name}.npy' if to == 'npy' else name)
      done = _write(tuned, path, own, to, model, base_model, console)
      where = done.path.relative_to(partial).as_posix()
      facts = {k: tuned.metadata.get(k) for k in ('method', 'task', 'labels', 'words', 'step')}
      about.append({'name': name, 'path': where, **facts, 'placement': done.placement})
    manifest.write(partial, manifest.facts(to, ready[0].backbone, about))
  return Exported(place, prompts=tuple(f.name for f in found))


def _check_options(
  to: str,
  base_model: str | None,
  quantize: str | None,
  samples: Sequence[str] | None,
  least_agreement: float,
) -> None:
  if to not in FORMATS:
    raise unknown('value of to', to, FORMATS, parameters=['to'])
  if base_model and to != 'peft':
    raise UserError(
      f'base_model is what PEFT calls the model; it goes with the format "peft", not with {to!r}.',
      ['base_model'],
    )
  if quantize and to != 'ctranslate2':
    raise UserError(
      f'quantize is of the numbers of "ctranslate2"; {to!r} keeps those of the model.', ['quantize']
    )
  if samples is not None and to not in SERVED:
    raise UserError(
      f'samples are texts on which {" and ".join(SERVED)} are compared with infer; {to!r} has no '
      'model that could answer.',
      ['samples'],
    )
  if samples is not None and not any(text.strip() for text in samples):
    raise UserError('samples holds no text; expected at least one.', ['samples'])
  if not 0 <= least_agreement <= 1:
    raise UserError(
      f'least_agreement is {least_agreement}; expected a share, 0 to 1.', ['least_agreement']
    )


def _write(
  ready: loading.Tuned,
  file: str,
  place: pathlib.Path,
  to: str,
  model: str | None,
  base_model: str | None,
  console: Console,
) -> Exported:
  """Writes one prompt without its model, or as T5X's checkpoint."""
  config = only_t5(ready.backbone.config, f'The format {to}')
  prompt = _plain(ready, file, to)
  step = ready.metadata.get('step') or 0
  if to == 'peft':
    _refuse_existing(place)
    name, base = (base_model, None) if base_model else _peft_base(model, ready)
    write_peft(
      place, prompt, base_model=name, layers=config.num_decoder_layers, heads=config.num_heads
    )
    _check_written(place, read_peft(place), prompt)
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
    _merge(ready, prompt, place, step, console)
  else:
    place = numpy_checkpoint_path(place, step) if to == 'numpy_checkpoints' else place
    _refuse_existing(place)
    write_npy(place, prompt)
    _check_written(place, read_npy(place), prompt)
  return Exported(place, prompt.placement)


def _check_written(place: pathlib.Path, again: Found, prompt: Foreign) -> None:
  """Removes a file or folder, and refuses, where what is read there has other bits."""
  if _bits(again.prompt) == _bits(prompt):
    return
  if place.is_dir():
    shutil.rmtree(place)
  else:
    place.unlink()
  raise UserError(f'{place} was not read back as it was written, so it was removed.')


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


def _bits(prompt: Foreign) -> dict[str, bytes]:
  arrays = prompt.params if isinstance(prompt, Trained) else {'values': prompt.values}
  return {name: np.asarray(value, np.float32).tobytes() for name, value in arrays.items()}


def _plain(ready: loading.Tuned, file: str, to: str) -> Foreign:
  """The numbers of the prompt, as far as another library can use them."""
  method = ready.model.prompt
  if method is None:
    raise UserError(
      f'{file!r} holds weights of the model, not a prompt; there is nothing to export.'
    )
  params = ready.variables['params'].get('prompt', {})
  own = lambda: Trained(method, jax.tree.map(np.asarray, flatten_dict(params, sep='/')))
  if to == 'peft' and isinstance(method, MULTITASK):
    return own()
  if method.depends_on == {TASK}:
    raise UserError(
      f'{file!r} is a {type(method).__name__}, which holds a prompt for each of several tasks. '
      'Give that of one task: training has put each into the folder task_prompts beside it.'
    )
  if features := sorted(features_of(method)):
    raise UserError(
      f'{file!r} is a {type(method).__name__}, which reads {", ".join(features)} of each example: '
      'no format has a form for it. Answer with the prompt file, by infer, on a file with these '
      'columns.',
      ['to'],
    )
  if method.depends_on:
    reads = ', '.join(sorted(method.depends_on))
    raise UserError(
      f'{file!r} is a {type(method).__name__}, which reads {reads} of each input: the format '
      f'{to!r} has no form for it. Take "stablehlo" or "savedmodel", which hold the model too.',
      ['to'],
    )
  found = ready.injections()
  if to != 'peft' and isinstance(method, METHODS):
    raise UserError(
      f'{file!r} is a {type(method).__name__}, which the format {to!r} does not know; take "peft", '
      'or "stablehlo" or "savedmodel" with the model.',
      ['to'],
    )
  if to == 'peft' and found.decoder.inside and found.decoder.kv is None:
    return own()
  return plain(found, type(method).__name__)


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
