"""Plans as a table, as JSON and as Markdown."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from prompt_jax import byte_size
from prompt_jax.byte_size import gibibytes
from prompt_jax.scale.plan import Plan
from prompt_jax.scale.search import Setting

GIB = 2**30
COLUMNS = (
  'step', 'topology', 'layout', 'mesh', 'weights', 'micro', 'remat', 'fits', 'arguments GiB',
  'temporaries GiB', 'needed / limit GiB', 'TFLOP', 'least TFLOP', 'HBM GB', 'collectives',
  'roofline s', 'kernels s', 'estimate s', 'ideal s', 'compile s',
)  # fmt: skip
FORMULA = (
  'All figures are for one device. Estimate: the sum over all instructions, including loop '
  "iterations, of the compiler's cycles / clock rate, plus bytes sent / bandwidth of one link, "
  'without overlap. Kernels: their part of the estimate. The compiler gives no cycles for them, so '
  "it is the FLOPs or bytes that they declare, at the rate of the compiler's schedule for "
  'attention. Roofline, a lower bound: the sum of max(FLOPs / peak, bytes / memory bandwidth). '
  'Ideal: 4 FLOPs per weight and token, plus attention (least TFLOP), at peak. No time includes '
  'transfers between slices. Nothing was timed on a TPU.'
)


@dataclasses.dataclass(frozen=True)
class PlanRow:
  """One plan, with its step and setting."""

  step: str
  setting: Setting
  plan: Plan


def cells(row: PlanRow) -> list[str]:
  """One text per column of `COLUMNS`; "-" for figures that a plan that does not fit lacks."""
  s, p = row.setting, row.plan
  memory, cost = p.memory, p.cost
  return [
    row.step,
    s.topology if s.slices == 1 else f'{s.slices} x {s.topology}',
    s.layout,
    str(s.mesh),
    s.weights,
    str(s.microbatches),
    s.remat,
    'yes' if p.fits else 'NO',
    _number(memory.arguments / GIB if memory else None, 1),
    _number(memory.temporaries / GIB if memory else None, 1),
    f'{gibibytes(p.needed)} / {gibibytes(p.limit)}',
    _number(cost.flops / 1e12 if cost else None, 2),
    _number(p.least_flops / 1e12 if p.least_flops else None, 2),
    _number(cost.hbm_bytes / 1e9 if cost else None, 1),
    _collectives(p),
    _number(cost.roofline_seconds if cost else None, 3),
    _number(cost.kernel_seconds if cost else None, 3),
    _number(p.estimate_seconds, 3),
    _number(p.ideal_seconds, 3),
    _number(p.compile_seconds, 0),
  ]


def markdown(rows: Sequence[PlanRow], meaning: str = FORMULA) -> str:
  """A table, and the meaning of its figures."""
  lines = [' | '.join(line) for line in (COLUMNS, ['---'] * len(COLUMNS), *map(cells, rows))]
  return ''.join(f'| {line} |\n' for line in lines) + f'\n{meaning}\n'


def as_json(row: PlanRow) -> dict[str, Any]:
  """Every figure of a plan, in bytes, FLOPs and seconds."""
  return {
    'step': row.step,
    'setting': {**dataclasses.asdict(row.setting), 'mesh': list(row.setting.mesh)},
    'plan': {**dataclasses.asdict(row.plan), 'estimate_seconds': row.plan.estimate_seconds},
  }


def _collectives(plan: Plan) -> str:
  if plan.cost is None:
    return '-'
  found = dict(plan.cost.collectives)
  if plan.cost.between_slices.count:
    found['between slices'] = plan.cost.between_slices
  parts = [f'{t.count} {kind} {byte_size.written(t.bytes)}' for kind, t in found.items()]
  return ', '.join(parts) or 'none'


def _number(value: float | None, digits: int) -> str:
  """A figure with so many digits after the point, and one that counts where it is smaller."""
  if value is None:
    return '-'
  return f'{value:.{digits}f}' if value == 0 or value >= 0.1**digits else f'{value:.1g}'
