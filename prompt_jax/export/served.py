"""Prompts and their model as one folder of software that serves T5s, compared with `infer`."""

import pathlib
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from prompt_jax.checkpoints.backbone import find
from prompt_jax.errors import UserError
from prompt_jax.export import (
  check,
  ctranslate2_model,
  hf_prompts,
  manifest,
  savedmodel,
  stablehlo,
  text_in_graph,
)
from prompt_jax.export import engines as running
from prompt_jax.export import model as forms
from prompt_jax.export.prompt_groups import grouped, weights_of
from prompt_jax.export.prompt_ids import instead, numbered
from prompt_jax.export.served_prompt import ServedPrompt, check_methods
from prompt_jax.loading import BaseModel, Tuned, load_all
from prompt_jax.models.module import only_t5
from prompt_jax.named_prompts import NamedFile

# Those in which a prompt is ids of a vocabulary, and those in which it is arrays of a program.
AS_IDS, AS_ARRAYS = ('hf', 'ctranslate2'), ('stablehlo', 'savedmodel')
FORMATS = (*AS_IDS, *AS_ARRAYS)
LEAST_AGREEMENT = 0.9


def export_served(
  found: Sequence[NamedFile],
  folder: pathlib.Path,
  to: str,
  base: BaseModel,
  *,
  quantize: str | None,
  samples: Sequence[str],
  least_agreement: float,
  console: Console,
) -> Sequence[ServedPrompt]:
  """Writes a folder that appears whole, compared with `infer`, or not at all.

  Args:
    found: the prompts.
    folder: does not exist yet.
    to: of FORMATS.
    base: the model, see `loading.load_all`.
    quantize: see `ctranslate2_model.QUANTIZE`; None keeps float32.
    samples: texts that both answer.
    least_agreement: share of equal answers that a quantised export must have.
    console: where is told what was compared.

  Raises:
    UserError: a prompt, a model or an option that the format does not take; the folder exists or
      cannot be written; the engine answers otherwise.
  """
  check_methods(found, instead(to) if to in AS_IDS else None)
  if to == 'ctranslate2':
    ctranslate2_model.check_installed(quantize)
  if to in AS_ARRAYS:
    stablehlo.check_installed()
  if to == 'savedmodel':
    savedmodel.check_installed()
  ready = load_all(base, [f.file for f in found], None)
  only_t5(ready[0].backbone.config, f'The format {to}')
  with forms.appearing(folder) as partial:
    write = _write_ids if to in AS_IDS else _write_arrays
    prompts, about = write(found, ready, folder, partial, to, base, quantize)
    manifest.write(partial, about)  # an engine may read it
    agreement = _compared(to, partial, prompts, samples, quantize is None)
    if agreement and agreement.answers < least_agreement and quantize:
      raise UserError(
        f'In {quantize} {agreement.answers:.1%} of the answers are the same; expected at least '
        f'{least_agreement:.1%}. What was written was removed. Give other numbers, or a lower '
        'share.',
        ['quantize', 'least_agreement'],
      )
    manifest.write(partial, {**about, 'check': agreement and agreement.about()})
  said = _said(to, agreement, quantize)
  if to == 'savedmodel' and text_in_graph.lacks(prompts[0].words):
    said += '\nIt takes ids only: tensorflow-text, which cuts text, is not installed here.'
  console.print(said, soft_wrap=True, highlight=False, markup=False)
  return prompts


Written = tuple[Sequence[ServedPrompt], dict[str, Any]]  # the prompts, and the manifest


def _write_ids(
  found: Sequence[NamedFile],
  ready: Sequence[Tuned],
  folder: pathlib.Path,
  partial: pathlib.Path,
  to: str,
  base: BaseModel,
  quantize: str | None,
) -> Written:
  prompts = numbered(found, ready, to)
  named = base.of_prompt(ready[0].metadata)
  model = forms.listed(find(named.name, named.vocabulary), None)
  if to == 'hf':
    hf_prompts.check(model, prompts)
  forms.check_place(folder, model.size + sum(p.rows.nbytes for p in prompts))
  if to == 'hf':
    hf_prompts.save(partial, model, prompts)
  else:
    ctranslate2_model.save(partial, model, prompts, quantize)
  about = manifest.facts(to, ready[0].backbone, [p.about() for p in prompts], quantize)
  return prompts, about


def _write_arrays(
  found: Sequence[NamedFile],
  ready: Sequence[Tuned],
  folder: pathlib.Path,
  partial: pathlib.Path,
  to: str,
  base: BaseModel,
  quantize: str | None,
) -> Written:
  del base, quantize  # the model is the one in memory, in float32
  backbone = ready[0].backbone
  groups, weights = grouped(found, ready), weights_of(backbone.params)
  prompts = stablehlo.placed(found, ready, groups)
  sizes = [x.nbytes for own in (weights, *(g.arrays for g in groups)) for x in own.values()]
  forms.check_place(folder, sum(sizes))
  if to == 'stablehlo':
    stablehlo.save(partial, weights, groups)
    said, of_groups = [p.about() for p in prompts], stablehlo.about(groups)
  else:
    savedmodel.save(partial, weights, groups, prompts, backbone.vocabulary)
    # The groups are inside: a prompt is known by its place among all.
    said = [{'name': p.name, 'place': i, **p.facts()} for i, p in enumerate(prompts)]
    of_groups = None
  stablehlo.save_vocabulary(partial, backbone.vocabulary)
  return prompts, manifest.facts(to, backbone, said, groups=of_groups)


def _compared(
  to: str,
  folder: pathlib.Path,
  prompts: Sequence[ServedPrompt],
  samples: Sequence[str],
  exact: bool,
) -> check.Agreement | None:
  """None where the engine is not installed."""
  if running.missing(to):
    return None
  expected = check.answers(prompts, samples)
  backbone = prompts[0].tuned.backbone
  rows, eos_id = backbone.config.vocab_size, backbone.vocabulary.eos_id
  try:
    return check.compare(expected, running.opened(to, folder, rows, eos_id), exact)
  except UserError:
    raise
  except Exception as e:  # other software raises anything
    line = ' '.join(str(e).split())[:300]
    if to == 'savedmodel':  # which knows fewer operations than JAX
      line += " The format 'stablehlo' may take it."
    raise UserError(
      f'{" and ".join(running.NEEDS[to])} cannot run what was written for {to!r}, so it was '
      f'removed: {type(e).__name__}: {line}'
    ) from e


def _said(to: str, agreement: check.Agreement | None, quantize: str | None) -> str:
  if agreement is None:
    absent = ' and '.join(running.missing(to))
    return f'Not compared with infer: {absent} is not installed here.'
  asked = f'{agreement.texts} texts, {agreement.prompts} prompts'
  apart = f'log-probabilities differ by at most {agreement.difference:.1g}'
  if quantize:
    return (
      f'Compared in {agreement.engine}: {agreement.answers:.1%} of the answers are those of infer '
      f'({asked}); {apart}'
    )
  return f'Verified in {agreement.engine}: the answers of infer ({asked}); {apart}'
