"""Runs the commands of a sweep as workloads on a GKE cluster of TPU slices, with Google's `xpk`.

A workload runs the command of a cell once on every host of its slice. Its state is read from
`xpk workload list` and from the folder of the cell, so that folder must be on storage that is
mounted at the same path on this machine and in the cluster's containers.
"""

import dataclasses
import hashlib
import pathlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from prompt_jax.errors import UserError
from prompt_jax.sweeps import local
from prompt_jax.sweeps.cells import Job
from prompt_jax.sweeps.state import State, read, write

LONGEST = 40  # characters of a workload's name
OWN = ('workload', 'command')  # options that the sweep sets itself
SETUP = 'setup'  # not of xpk: a shell command in the container before the run
WHERE = ('cluster', 'zone', 'project')  # of every command of xpk
IMAGES = ('docker-image', 'base-docker-image')
CHECKOUT = 'constraints.txt'  # which the root of a checkout has
INSTALL = f"pip install --quiet -c {CHECKOUT} '.[tpu]'"


class Listed(NamedTuple):
  """A workload, as printed by `xpk workload list`.

  Attributes:
    status: "Admitted", "QuotaReserved", "Evicted", "Finished", ...
    machines: that run it, or ran it; "0" or "<none>" while it waits.
    message: in words.
  """

  status: str
  machines: str
  message: str

  @property
  def ended(self) -> bool:
    return self.status == 'Finished'

  @property
  def failed(self) -> bool:
    return self.ended and 'failed' in self.message.lower()

  @property
  def spoken(self) -> str:
    runs = self.status in ('Admitted', 'Evicted') and self.machines not in ('0', '<none>')
    return 'running' if runs else 'waiting'


def hand_over(
  output: pathlib.Path,
  jobs: Sequence[Job],
  states: dict[str, State],
  options: Mapping[str, Any],
  dry_run: bool,
  say: Callable[[str], None],
) -> None:
  """Reads the state of workloads, and creates workloads for jobs that are not done.

  A job that is first seen to have failed, or to have disappeared, is only reported; the next call
  creates its workload again. So the user knows before it costs money again.

  Args:
    output: folder of the sweep.
    jobs: of the sweep.
    states: by name of a job; those that are submitted, done or failed by now change.
    options: see `create`.
    dry_run: only print the commands.
    say: prints.

  Raises:
    UserError: xpk refuses something.
  """
  began = [job for job in jobs if states[job.name].what == 'submitted']
  if began and shutil.which('xpk') is None:  # a dry run
    say(f'xpk is not installed here, so the state of {len(began)} workloads is unknown')
  elif began:
    found = listed(options)
    for job in began:
      _look_at(output, job, states, found, dry_run, say)
  for job in jobs:
    if states[job.name].what == 'done' or job in began:
      continue
    name = name_of(output, job, states[job.name].batch)
    words = create(output, job, options, name)
    if dry_run:
      say(shlex.join(words))
    else:
      states[job.name] = submit(output, job, name, words)
      say(f'{job.name}: workload {name}')


def _look_at(
  output: pathlib.Path,
  job: Job,
  states: dict[str, State],
  found: Mapping[str, Listed],
  dry_run: bool,
  say: Callable[[str], None],
) -> None:
  """Prints and saves the state of a workload."""
  before = states[job.name]
  states[job.name] = state = looked_at(output, job, before, found)
  if state != before:
    say(f'{job.name}: {state.what}{": " if state.last_line else ""}{state.last_line}')
    if not dry_run:
      write(output, job, state)
  else:
    say(f'{job.name}: {found[str(state.batch)].spoken}, workload {state.batch}')


def check(options: Mapping[str, Any], output: pathlib.Path, dry_run: bool) -> None:
  """Refuses options with which a workload cannot run, or its results would be lost.

  Raises:
    UserError: it does; or there is no xpk, which only a dry run can do without.
  """
  if not dry_run and shutil.which('xpk') is None:
    raise UserError(
      'xpk, which runs workloads on GKE, is not installed. Install it (pip install xpk) and log in '
      'with gcloud, or only print the commands (a dry run).',
      ['dry_run'],
    )
  hint = "XPK = {'cluster': 'mine', 'zone': 'us-west4-a', 'tpu-type': 'v5litepod-16'}"
  if 'cluster' not in options:
    raise UserError(f'XPK names no cluster; give {hint}.')
  if ('tpu-type' in options) == ('device-type' in options):
    raise UserError(f"XPK needs one of 'tpu-type' and 'device-type'; give {hint}.")
  slices = options.get('num-slices', 1)
  if not isinstance(slices, int) or slices < 1:
    raise UserError(f"XPK's num-slices is {slices!r}; expected a whole number of at least 1.")
  device = str(options.get('device-type', 'tpu'))
  prepared = SETUP in options or 'docker-image' in options
  if not prepared and not re.match(r'tpu|v\d', device):
    raise UserError(
      f"XPK's device-type is {device!r}, and what is installed without {SETUP!r} computes on TPUs. "
      f"Give '{SETUP}': \"{INSTALL.replace('tpu', 'cuda')}\", or a 'docker-image'."
    )
  for name in OWN:
    if name in options:
      raise UserError(f'XPK has {name!r}, which the sweep sets for each run. Leave it out.')
  if all(name in options for name in IMAGES):
    raise UserError(
      "XPK has 'docker-image', which is used as it is, and 'base-docker-image', to which the "
      'checkout is added. Give one of them.'
    )
  if not output.is_absolute():
    raise UserError(
      f'OUTPUT is {str(output)!r}; expected an absolute path on storage that is mounted here and '
      "in the cluster's containers (xpk storage), such as a bucket at /mnt/bucket/my_sweep. A "
      "container's own disk is deleted with it."
    )
  folder = pathlib.Path(options.get('script-dir', '.'))
  installs = 'docker-image' not in options and SETUP not in options
  if installs and not (folder / CHECKOUT).is_file():
    raise UserError(
      f'Containers install prompt_jax from {str(folder)!r}, which is not a checkout of it. Set '
      "'script-dir' to a checkout, 'docker-image' to an image that has prompt_jax, or 'setup' to a "
      'shell command that installs it.'
    )


def name_of(output: pathlib.Path, job: Job, before: str | None) -> str:
  """A name for a workload, as Kubernetes has them: the last words of the job's, and a checksum.

  Args:
    output: folder of the sweep: two sweeps on a cluster have other names.
    job: the command.
    before: name of its last workload, which the cluster may still know.
  """
  whole = f'{output.absolute()}\0{job.name}\0{before or ""}'
  digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
  words = re.sub('[^a-z0-9]+', '-', job.name.lower())
  room = LONGEST - len(f'pj--{digest}')
  return f'pj-{words[-room:].strip("-")}-{digest}'


def create(output: pathlib.Path, job: Job, options: Mapping[str, Any], name: str) -> list[str]:
  """The command that creates a workload.

  Args:
    output: folder of the sweep.
    job: what it runs.
    options: of `xpk workload create`, without dashes: {"cluster": "mine"}; True for a flag without
      a value, a list for one that is repeated. "setup" is ours: a shell command before the run.
    name: of the workload.
  """
  given = {'num-slices': 1, **options}
  setup = given.pop(SETUP, None)
  if 'docker-image' not in given:
    given = {'base-docker-image': 'python:3.11', 'script-dir': '.', **given}
    setup = INSTALL if setup is None else setup
  command = shlex.join(local.command(output, job))
  command = f'{setup} && {command}' if setup else command
  if '\n' in command:
    raise UserError(f'Cell {job.name} has a value of several lines, which xpk cannot pass on.')
  return [
    'xpk', 'workload', 'create', f'--workload={name}', *_flags(given), f'--command={command}',
  ]  # fmt: skip


def _flags(options: Mapping[str, Any]) -> list[str]:
  flags = []
  for name, value in options.items():
    if value is True:
      flags.append(f'--{name}')
    elif value not in (False, None):
      each = value if isinstance(value, list | tuple) else [value]
      flags += [f'--{name}={one}' for one in each]
  return flags


def submit(output: pathlib.Path, job: Job, name: str, words: Sequence[str]) -> State:
  """Creates a workload.

  The record is written first, so that no workload is created without a record.

  Raises:
    UserError: xpk refuses it.
  """
  before = read(output, job)
  state = dataclasses.replace(before, what='submitted', flags=job.flags, last_line='', batch=name)
  write(output, job, state)
  try:
    _call(words)
  except UserError:
    write(output, job, dataclasses.replace(before, flags=job.flags))
    raise
  return state


def listed(options: Mapping[str, Any]) -> dict[str, Listed]:
  """The workloads of the cluster, by name."""
  where = {name: value for name, value in options.items() if name in WHERE}
  text = _call(['xpk', 'workload', 'list', *_flags(where)])
  # Columns: name, created, priority, machines needed, machines running or ran, machines done,
  # status, message. Only the last holds spaces; xpk's own words around the table are no rows.
  rows = [line.split(maxsplit=7) for line in text.splitlines()]
  return {row[0]: Listed(row[6], row[4], row[7]) for row in rows if len(row) == 8}


def looked_at(output: pathlib.Path, job: Job, state: State, found: Mapping[str, Listed]) -> State:
  """The state of a submitted command, from the files that it wrote and from the cluster."""
  # Its time is no estimate for other runs, because its waiting time is not known.
  done = dataclasses.replace(state, what='done', resumed=True)
  folder = output / job.name
  if any(folder.glob('results*.json')):
    return done
  workload = found.get(state.batch or '')
  if workload is None:
    said = f'the cluster has no workload {state.batch}, and there are no scores of it'
    return dataclasses.replace(state, what='failed', last_line=said)
  if not workload.ended:
    return state
  if workload.failed:
    said = f'workload {state.batch}: {workload.message.strip()}'
    return dataclasses.replace(state, what='failed', last_line=said)
  if not (folder / 'operative_config.gin').is_file():
    said = (
      f'workload {state.batch} finished but wrote nothing to {folder}: mount the same storage '
      "there in the cluster's containers and on this machine"
    )
    return dataclasses.replace(state, what='failed', last_line=said)
  return done


def _call(words: Sequence[str]) -> str:
  """Runs an xpk command, and returns its output.

  Raises:
    UserError: it fails; with the last lines of its output.
  """
  done = subprocess.run(
    words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
  )
  if done.returncode:
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    what = ' '.join(words[:4])
    raise UserError('\n  '.join([f'{what} ends with code {done.returncode}:', *said[-5:]]))
  return done.stdout
