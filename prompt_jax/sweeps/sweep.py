"""Runs every combination of the values in some lists, phase by phase."""

import functools
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from rich.console import Console

from prompt_jax.errors import UserError, unknown
from prompt_jax.sweeps import local, planning, slurm_jobs, tables, xpk_workloads
from prompt_jax.sweeps import state as on_disk
from prompt_jax.sweeps.cells import Cell, Job, cells_of, check_names, population_jobs, train_job
from prompt_jax.sweeps.check import Checked, Resolver, checked, together_axes
from prompt_jax.sweeps.state import State

CLUSTERS = ('local', 'slurm', 'xpk')


def sweep(
  *,
  models: Sequence[str] | None,
  tasks: Sequence[Any] | None,
  methods: Sequence[str] | None,
  inits: Sequence[str] | None,
  lengths: Sequence[int] | None,
  learning_rates: Sequence[float] | None,
  grid: Mapping[str, Sequence[Any]],
  seeds: Sequence[int],
  fixed: Mapping[str, Any],
  gin_files: Sequence[str],
  output: str,
  together: bool,
  cluster: str,
  slurm: Mapping[str, Any],
  xpk: Mapping[str, Any],
  plan: bool,
  topology: str | None,
  too_large: str,
  dry_run: bool,
  job: str | None,
  again: Sequence[str],
  resolver: Resolver,
  console: Console,
) -> None:
  """Checks every cell, prints a plan, runs the unfinished cells, and collects the scores.

  Args:
    models: values of MODEL.
    tasks: values of TASK.
    methods: files of gin/prompts, or "all" for model tuning.
    inits: files of gin/inits.
    lengths: values of PROMPT_LENGTH.
    learning_rates: values of LEARNING_RATE.
    grid: values of other macros and bindings of `train`, by name.
    seeds: of every combination.
    fixed: macros and bindings that all runs share.
    gin_files: that all runs read.
    output: folder of the sweep.
    together: train cells that differ only in seeds, rates, lengths, ... as one `population`.
    cluster: one of `CLUSTERS`.
    slurm: options of sbatch.
    xpk: options of `xpk workload create`, see `xpk_workloads.create`.
    plan: whether to plan before anything starts.
    topology: what to plan for, see `planning.where`; None for the device of the runs.
    too_large: what to do with runs that do not fit, see `planning.TOO_LARGE`.
    dry_run: only check, and print what would be done.
    job: name of the only command to run, on this machine.
    again: arguments of this command, for the jobs of a cluster.
    resolver: of the commands that the sweep runs.
    console: where to print.

  Raises:
    UserError: a cell that cannot run or does not fit, by name; some cells failed.
  """
  if cluster not in CLUSTERS:
    raise unknown('cluster', cluster, CLUSTERS, parameters=['cluster'])
  if too_large not in planning.TOO_LARGE:
    raise unknown('thing to do with runs that do not fit', too_large, planning.TOO_LARGE)
  jax.config.update('jax_platforms', 'cpu')  # only shapes are needed here; the runs use the devices
  named = {
    'model': models, 'task': tasks, 'method': methods, 'init': inits, 'length': lengths,
    'learning_rate': learning_rates,
  }  # fmt: skip
  axes = {**{n: v for n, v in named.items() if v is not None}, **grid}
  check_names(axes, fixed)
  cells = cells_of(axes, seeds)
  jobs = _jobs(cells, axes, fixed, gin_files, together, resolver)
  if job is not None:
    jobs = _named(jobs, job)
  folder = pathlib.Path(output)
  if cluster == 'xpk' and job is None:
    xpk_workloads.check(xpk, folder, dry_run)
  known = _checked(jobs, resolver)
  states = {j.name: on_disk.read(folder, j) for j in jobs}
  tables.plan(jobs, states, known, console)
  say = functools.partial(_say, console)
  if plan and job is None:
    place, slices = planning.where(topology, cluster, xpk)
    jobs = _planned(jobs, states, known, place, slices, too_large, resolver, console)
  if cluster == 'slurm' and job is None:
    slurm_jobs.hand_over(folder, jobs, states, slurm, again, dry_run, say)
  elif cluster == 'xpk' and job is None:
    xpk_workloads.hand_over(folder, jobs, states, xpk, dry_run, say)
  else:
    _run(folder, jobs, states, dry_run, console)
  if not dry_run and job is None:
    _conclude(folder, jobs, states, console)


def _jobs(
  cells: Sequence[Cell],
  axes: Mapping[str, Any],
  fixed: Mapping[str, Any],
  gin_files: Sequence[str],
  together: bool,
  resolver: Resolver,
) -> list[Job]:
  apart = [train_job(cell, fixed, gin_files) for cell in cells]
  if not together:
    return apart
  return population_jobs(cells, together_axes(apart, list(axes), resolver), fixed, gin_files)


def _named(jobs: Sequence[Job], name: str) -> list[Job]:
  chosen = [j for j in jobs if j.name == name]
  if not chosen:
    raise unknown('run of this sweep', name, [j.name for j in jobs])
  return chosen


def _checked(jobs: Sequence[Job], resolver: Resolver) -> dict[str, Checked]:
  """By name of a job; jobs that differ only in the seed are checked once."""
  found: dict[str, Checked] = {}
  for j in jobs:
    alone = f'{j.verb} {dict(j.cells[0].setting)}' if len(j.cells) == 1 else j.name
    if alone not in found:
      found[alone] = checked(j, resolver)
    found[j.name] = found[alone]
  return found


def _planned(
  jobs: Sequence[Job],
  states: Mapping[str, State],
  known: Mapping[str, Checked],
  place: str | None,
  slices: int,
  too_large: str,
  resolver: Resolver,
  console: Console,
) -> list[Job]:
  """Plans the unfinished jobs, and returns the jobs to run."""
  left = planning.left(jobs, states)
  if not left:
    return list(jobs)
  if place is None:
    _say(
      console,
      'No plan, because the device of the runs is not known. Give a topology, such as v5e-16.',
    )
    return list(jobs)
  found = planning.plans(left, known, place, slices, resolver.compiler, console)
  planning.show(left, found, known, place, console)
  return planning.fitting(jobs, found, too_large, place, console)


def _run(
  folder: pathlib.Path,
  jobs: Sequence[Job],
  states: dict[str, State],
  dry_run: bool,
  console: Console,
) -> None:
  """Runs one command after the other; a failed one does not stop the others."""
  if dry_run:
    for j in jobs:
      _say(console, shlex.join(local.command(folder, j)))
    return
  for number, j in enumerate(jobs, 1):
    if states[j.name].what == 'done':
      continue
    console.rule(f'{number} of {len(jobs)}: {j.name}')
    _say(console, shlex.join(local.command(folder, j)))
    before = states[j.name].seconds
    states[j.name] = state = local.run(folder, j)
    took = tables.spoken(state.seconds - before)
    _say(console, f'{state.what} in {took}{": " if state.last_line else ""}{state.last_line}')
    if (left := tables.remaining(jobs, states)) is not None and left:
      _say(console, f'about {tables.spoken(left)} left')


def _conclude(
  folder: pathlib.Path, jobs: Sequence[Job], states: Mapping[str, State], console: Console
) -> None:
  """Writes and prints the table of finished cells.

  Raises:
    UserError: some cells failed.
  """
  failed = {j.name: states[j.name].last_line for j in jobs if states[j.name].what == 'failed'}
  lines = tables.gather(folder, jobs, states)
  if lines or failed:
    table, text = tables.write(folder, lines, failed)
    tables.show(lines, console)
    _say(console, f'Tables: {table}, {text}')
  if failed:
    every = '\n'.join(f'  {name}: {line}' for name, line in failed.items())
    raise UserError(
      f'{len(failed)} of {len(jobs)} runs failed:\n{every}\n'
      'The same command retries them; finished runs are not repeated.'
    )


def _say(console: Console, text: str) -> None:
  console.print(text, soft_wrap=True, highlight=False, markup=False)
