"""`prompt-jax plan`: whether a step fits a TPU slice or this machine, and how long it takes."""

import dataclasses
import functools
import itertools
import json
import pathlib
from collections.abc import Iterator, Sequence

import jax
from rich.console import Console
from rich.progress import track
from rich.table import Table

from prompt_jax.checkpoints.backbone import find
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError, unknown
from prompt_jax.models.module import only_t5
from prompt_jax.models.t5.config import T5Config
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.runtime.devices import choose_device, default_dtype
from prompt_jax.scale import here
from prompt_jax.scale import search as ways
from prompt_jax.scale.chips import slice_of
from prompt_jax.scale.program import STEPS, Work
from prompt_jax.scale.search import Setting
from prompt_jax.scale.table import COLUMNS, FORMULA, PlanRow, as_json, cells, markdown
from prompt_jax.sharding.layouts import MeshSize

FORMS = ('.json', '.md')
BEST = 5  # of a search
LAYOUT, REMAT, MICROBATCHES = 'data', 'cheap', 1  # if they are neither given nor searched


def plan(
  *,
  architecture: T5Config | None,
  model: str | None,
  prompt: PromptMethod | None,
  topologies: Sequence[str],
  steps: Sequence[str],
  mesh: Sequence[int] | None,
  layout: str | None,
  slices: int,
  device: str,
  weights: str | None,
  batch_size: int,
  input_length: int,
  target_length: int,
  labels: int,
  microbatches: int | None,
  dtype: str | None,
  query_chunk: int | None,
  scores_dtype: str,
  attention: str,
  remat: str | None,
  fit: bool,
  search: bool,
  output: str | None,
) -> None:
  """Compiles each step for each slice, and prints the compiler's figures.

  Args:
    architecture: of the model, or
    model: its name or folder, see `checkpoints.backbone.find`; its weights are not read.
    prompt: the method; None for the model alone, which has no training step.
    topologies: names of `scale.chips.SLICES`, or `here.HERE`: the devices of this machine.
    steps: of `scale.program.STEPS`.
    mesh: (data, model) devices along each axis; None for all along "data", here for one, or to be
      found.
    layout: see `sharding.layouts.LAYOUTS`; None for "data", or to be found.
    slices: number of slices of each topology; "data" is split over them first.
    device: of this machine, see `runtime.devices`.
    weights: storage of frozen weights, see `scale.program.Work`; None for `dtype`, or to be found.
    batch_size: rows per step.
    input_length: tokens of an input.
    target_length: tokens of a target.
    labels: number of labels that an evaluation ranks.
    microbatches: parts of a training batch; None for 1, or to be found.
    dtype: of the computation; None is float32 on a CPU and bfloat16 elsewhere.
    query_chunk: see `T5Config`.
    scores_dtype: see `T5Config`.
    attention: see `T5Config`.
    remat: see `T5Config`; None for "cheap", or to be found.
    fit: find the first setting of each step that fits.
    search: find the fastest settings, and the smallest slice; varies what is not given.
    output: a .json or .md file for the result; None only prints it.
  """
  _check(topologies, steps, fit, search, slices, output)
  if architecture is None:
    assert model is not None  # `run` has seen to it
    architecture = only_t5(find(model).model()[0], 'A plan')
  platform = _platform(topologies, device, attention)
  dtype = dtype or default_dtype(platform)
  config = dataclasses.replace(
    architecture, dtype=dtype, query_chunk=query_chunk, scores_dtype=scores_dtype,
    attention=attention, remat=remat or REMAT,
  )  # fmt: skip
  work = Work(
    config, prompt, weights=weights or dtype, batch=batch_size, inputs=input_length,
    targets=target_length, microbatches=microbatches or MICROBATCHES, labels=labels,
  )  # fmt: skip
  given = ways.Given(MeshSize(*mesh) if mesh else None, layout, weights, microbatches, remat)
  console = Console()
  rows: list[PlanRow] = []
  for step, topology in itertools.product(steps, topologies):
    of_step = dataclasses.replace(work, step=step)
    if search:
      rows += _searched(of_step, topology, given, console)
    elif fit:
      rows += _fitting(of_step, topology, given, console)
    else:
      rows.append(_as_given(of_step, topology, given, slices, platform))
  is_here = here.HERE in topologies
  meaning = here.formula(jax.devices(platform)[0], dtype) if is_here else FORMULA
  _show(rows, meaning, console)
  if output is not None:
    _write(pathlib.Path(output), rows, meaning)


def _as_given(work: Work, topology: str, given: ways.Given, slices: int, platform: str) -> PlanRow:
  """The plan with the given settings, and defaults for the others."""
  layout = given.layout or LAYOUT
  if topology == here.HERE:
    place = here.placement(given.mesh, layout, slices, jax.devices(platform))
    mesh = place.size
  else:
    mesh = given.mesh or MeshSize(slices * slice_of(topology).devices, 1)
  micro = work.microbatches if work.step == 'train' else 1
  setting = Setting(topology, layout, mesh, work.weights, micro, work.config.remat, slices)
  if topology == here.HERE:
    return PlanRow(work.step, setting, here.plan(work, place))
  return PlanRow(work.step, setting, ways.compiled(work, setting))


def _platform(topologies: Sequence[str], device: str, attention: str) -> str:
  """The platform of the devices to plan for."""
  if here.HERE in topologies:
    return choose_device(device).platform
  if device != 'auto':
    raise UserError(
      f'device can only be given with topology {here.HERE!r}, this machine. Leave it out.',
      ('device',),
    )
  if attention == 'cudnn':
    raise UserError(
      'The cudnn attention is for GPUs, and this plan is for TPUs; expected plain or fused.'
    )
  jax.config.update('jax_platforms', 'cpu')  # a plan computes nothing on any device
  return 'tpu'


def _check(
  topologies: Sequence[str],
  steps: Sequence[str],
  fit: bool,
  search: bool,
  slices: int,
  output: str | None,
) -> None:
  """Refuses wrong arguments before compiling."""
  if output is not None and pathlib.Path(output).suffix not in FORMS:
    raise UserError(f'The output is {output!r}; expected a name that ends in .json or .md.')
  if search and fit:
    raise UserError('search finds more than fit does. Leave out one of the two.', ('search', 'fit'))
  if (search or fit) and slices > 1:
    name = 'search' if search else 'fit'
    raise UserError(
      f'{name} tries ways of running on one slice. Leave out slices, or {name}.', ('slices', name)
    )
  for step in steps:
    if step not in STEPS:
      raise unknown('step', step, STEPS)
  here.check_topologies(topologies, search, fit)
  for topology in topologies:
    if topology != here.HERE:
      slice_of(topology)


def _fitting(work: Work, topology: str, given: ways.Given, console: Console) -> Iterator[PlanRow]:
  """The first setting that fits."""
  found = ways.first(work, topology, given)
  if found is None:
    console.print(f'No setting that was tried fits {topology}.')
  else:
    yield PlanRow(work.step, found.setting, found.plan)


def _searched(work: Work, topology: str, given: ways.Given, console: Console) -> Iterator[PlanRow]:
  """The best settings that fit, and the smallest slice that fits."""
  shown = functools.partial(track, description=f'{work.step} on {topology}', console=console)
  found = ways.search(work, topology, given, shown=shown)
  if not found:
    console.print(f'No setting that was tried fits {topology}.')
  for best in found[:BEST]:
    yield PlanRow(work.step, best.setting, best.plan)
  if given.mesh is not None:  # which fixes the number of devices
    return
  least = ways.smallest(work, topology, given)
  if least is None:
    console.print(f'No setting that was tried fits any slice with the chips of {topology}.')
  else:
    console.print(f'The smallest slice that fits: {least.setting.topology}.', highlight=False)
    yield PlanRow(work.step, least.setting, least.plan)


def _show(rows: Sequence[PlanRow], meaning: str, console: Console) -> None:
  """Prints one column per plan, because there are more figures than fit on a line."""
  table = Table(show_header=False)
  table.add_column(style='bold')
  for _ in rows:
    table.add_column(justify='right')
  for name, *values in zip(COLUMNS, *map(cells, rows), strict=True):
    table.add_row(name, *values)
  console.print(table)
  console.print(meaning, highlight=False, soft_wrap=True)


def _write(path: pathlib.Path, rows: Sequence[PlanRow], meaning: str) -> None:
  if path.suffix == '.md':
    text = markdown(rows, meaning)
  else:
    text = json.dumps([as_json(row) for row in rows], indent=2) + '\n'
  write_atomically(path, text.encode())
