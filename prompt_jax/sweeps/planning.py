"""Plans a sweep before it starts: whether the runs fit, and how long they take."""

import dataclasses
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from prompt_jax.byte_size import gibibytes
from prompt_jax.errors import UserError, unknown
from prompt_jax.scale import plan as slices_of_tpus
from prompt_jax.scale.chips import SLICES
from prompt_jax.scale.here import HERE
from prompt_jax.sweeps.cells import Job
from prompt_jax.sweeps.check import Checked
from prompt_jax.sweeps.state import State
from prompt_jax.sweeps.tables import spoken

GIB = 2**30
TOO_LARGE = ('refuse', 'skip', 'run')  # what to do with runs that do not fit


@dataclasses.dataclass(frozen=True)
class Figures:
  """The plan of a run's training step, all of one device.

  Attributes:
    device: its kind.
    step: rows x maximum tokens of an input + of a target.
    how: dtype of the weights, devices and layout, microbatches.
    fits: according to the compiler.
    needed: bytes that the step needs.
    limit: bytes that are available.
    seconds: of a step; a lower bound on this machine, an estimate elsewhere; None if it does not
      fit.
  """

  device: str
  step: str
  how: str
  fits: bool
  needed: int
  limit: int
  seconds: float | None


def where(topology: str | None, cluster: str, xpk: Mapping[str, Any]) -> tuple[str | None, int]:
  """What to plan for, and the number of slices: a name of `SLICES`, `HERE`, or None for unknown
  machines.

  Raises:
    UserError: an unknown slice, or its compiler is not installed.
  """
  slices = xpk.get('num-slices', 1) if cluster == 'xpk' else 1
  if topology is None and cluster == 'xpk':
    kind = str(xpk.get('tpu-type', xpk.get('device-type'))).replace('v5litepod-', 'v5e-')
    topology = kind if kind in SLICES else None
  if topology is None:
    return (HERE if cluster == 'local' else None), 1
  if topology != HERE:
    if topology not in SLICES:
      raise unknown('topology', topology, [HERE, *SLICES])
    try:
      slices_of_tpus.check_compiler()
    except UserError as e:
      raise UserError(f'{e} Without a plan the runs start at once.', ['plan']) from e
  return topology, slices


def left(jobs: Sequence[Job], states: Mapping[str, State]) -> list[Job]:
  """The jobs that are neither done nor submitted to a cluster, which a plan can still stop."""
  return [job for job in jobs if states[job.name].what not in ('done', 'submitted')]


def plans(
  jobs: Sequence[Job],
  known: Mapping[str, Checked],
  topology: str,
  slices: int,
  compiler: Sequence[str],
  console: Console,
) -> dict[str, Figures]:
  """The plan of each job by name; jobs with the same program share a plan.

  Args:
    jobs: to plan.
    known: by name of a job.
    topology: see `where`.
    slices: the number of slices.
    compiler: the command line of a process that reads JSON {"topology", "slices", "jobs": [{"name",
      "verb", "flags", "prompts"}, ...]} and writes one line of JSON per job.
    console: where to show progress.

  Raises:
    UserError: a step that cannot be compiled, with the run's name.
  """
  first = {known[job.name].program: job for job in reversed(jobs)}
  todo = [job for job in jobs if first[known[job.name].program] is job]
  found: dict[str, Figures] = {}
  with console.status('') as status:
    answers = _compiled(todo, topology, slices, compiler)
    for number, job in enumerate(todo, 1):
      status.update(f'Compiling the training step of {number} of {len(todo)}: {job.name}')
      figures = next(answers)
      if 'error' in figures:
        raise UserError(f'Cell {job.name}: {figures["error"]}')
      found[known[job.name].program] = Figures(**figures)
  return {job.name: found[known[job.name].program] for job in jobs}


def _compiled(
  jobs: Sequence[Job], topology: str, slices: int, compiler: Sequence[str]
) -> Iterator[dict[str, Any]]:
  """The answers of the compiler's process, one per job."""
  asked = [
    {'name': j.name, 'verb': j.verb, 'flags': j.flags, 'prompts': len(j.cells)} for j in jobs
  ]
  # The compiler for slices needs no TPU, and must not occupy a TPU that the runs need.
  env = {**os.environ, **({} if topology == HERE else {'JAX_PLATFORMS': 'cpu'})}
  with tempfile.TemporaryFile('w+') as question, tempfile.TemporaryFile('w+') as noise:
    json.dump({'topology': topology, 'slices': slices, 'jobs': asked}, question)
    question.seek(0)
    process = subprocess.Popen(
      compiler, stdin=question, stdout=subprocess.PIPE, stderr=noise, text=True, env=env
    )
    assert process.stdout is not None
    try:
      for job in jobs:
        line = process.stdout.readline()
        if not line:
          what = _last_line(process, noise)
          raise UserError(f'Cell {job.name} could not be planned: {what}', ['plan'])
        figures = json.loads(line)
        assert figures.pop('name') == job.name
        yield figures
    finally:
      process.kill()  # not needed any more if it has not ended
      process.communicate()


def _last_line(process: subprocess.Popen, noise: Any) -> str:
  code = process.wait()
  noise.seek(0)
  lines = [line.strip() for line in noise if line.strip()]
  said = lines[-1] if lines else 'it said nothing'
  return (
    f'the process that compiles ended with code {code}: {said}. Without a plan the runs start at '
    'once.'
  )


def show(
  jobs: Sequence[Job],
  plan: Mapping[str, Figures],
  known: Mapping[str, Checked],
  topology: str,
  console: Console,
) -> None:
  """Prints one row for each different step, and the total time.

  Args:
    jobs: that were planned.
    plan: of `plans`.
    known: by name of a job.
    topology: see `where`.
    console: where to print.
  """
  here = topology == HERE
  place = f'this machine ({plan[jobs[0].name].device})' if here else topology
  table = Table(title=f'training steps on {place}, according to its compiler', title_justify='left')
  table.add_column('run: rows x tokens of input + target', overflow='fold')
  for name in ('runs', 'fits', 'GiB', 's/step', 'per run'):
    table.add_column(name, justify='right', no_wrap=True)
  groups: dict[Any, list[Job]] = {}
  for job in jobs:
    groups.setdefault((known[job.name].program, known[job.name].steps), []).append(job)
  total, large = 0.0, 0
  for (_, steps), members in groups.items():
    figures = plan[members[0].name]
    table.add_row(*_row(members, figures, steps, here))
    total += len(members) * steps * (figures.seconds or 0.0)
    large += 0 if figures.fits else len(members)
  console.print(table, markup=False)
  kind = (
    'at least: a lower bound, from the minimum FLOPs of a step and the rate of one matrix product '
    'measured here'
    if here
    else "according to the compiler's estimate, which was never compared with a real TPU"
  )
  rest = f', without the {large} runs that do not fit' if large else ''
  console.print(
    f'Training takes {spoken(total)} in all{rest}, {kind}. This assumes rows of full length, and '
    'does not include evaluation, compiling and reading of data.',
    highlight=False,
    soft_wrap=True,
  )


def _row(jobs: Sequence[Job], figures: Figures, steps: int, here: bool) -> list[str]:
  """The row of jobs with the same program and number of steps."""
  labels = [{n: str(v) for n, v in cell.label.items()} for job in jobs for cell in job.cells]
  same = [n for n in labels[0] if len({label[n] for label in labels}) == 1]
  what = ', '.join([*(f'{name} {labels[0][name]}' for name in same), f'{steps} steps'])
  sign, seconds = '>= ' if here else '', figures.seconds
  return [
    f'{what}: {figures.step}; {figures.how}',
    str(len(jobs)),
    'yes' if figures.fits else 'NO',
    f'{gibibytes(figures.needed)} of {gibibytes(figures.limit)}',
    '-' if seconds is None else f'{sign}{_of_step(seconds)}',
    '-' if seconds is None else f'{sign}{spoken(steps * seconds)}',
  ]


def _of_step(seconds: float) -> str:
  """ "0.00027", "0.32", "12", "171" """
  return f'{seconds:.2g}' if seconds < 10 else f'{seconds:.0f}'


def fitting(
  jobs: Sequence[Job], plan: Mapping[str, Figures], too_large: str, topology: str, console: Console
) -> list[Job]:
  """The jobs to run.

  Args:
    jobs: of the sweep.
    plan: of those that were planned, see `plans`.
    too_large: one of `TOO_LARGE`.
    topology: see `where`.
    console: where to print what is left out.

  Raises:
    UserError: some do not fit, and `too_large` is "refuse".
  """
  large = [job for job in jobs if job.name in plan and not plan[job.name].fits]
  if not large or too_large == 'run':
    return list(jobs)
  lines = [
    f'  {job.name}: {gibibytes(plan[job.name].needed)} of {gibibytes(plan[job.name].limit)} GiB'
    for job in large
  ]
  what = f'{len(large)} of {len(jobs)} runs do not fit'
  if too_large == 'skip':
    text = '\n'.join([f'{what} and are left out:', *lines])
    console.print(text, soft_wrap=True, highlight=False, markup=False)
    return [job for job in jobs if job not in large]
  search = 'prompt-jax plan, with a search over a topology such as v5e-16, finds what fits TPUs.'
  if topology != HERE:
    search = f'prompt-jax plan, with a search over the topology {topology}, finds what fits.'
  raise UserError(
    '\n'.join([f'{what}, and nothing was started:', *lines])
    + "\nMore MICROBATCHES, WEIGHTS = 'int8', a MESH with LAYOUT = 'tensor' or a smaller "
    f'BATCH_SIZE need less memory; {search} "skip" leaves these runs out, and "run" starts them '
    'anyway.',
    parameters=['too_large'],
  )
