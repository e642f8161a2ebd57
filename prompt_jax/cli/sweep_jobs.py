"""The commands of a sweep as values, and a process that compiles their training steps.

The process is `python -m prompt_jax.cli.sweep_jobs`: the sweep itself keeps off the devices, which
its runs need, and the compiler of TPU slices sets environment variables that a run on a real slice
must not have. See `sweeps.planning.plans` for what it reads and writes.
"""

import json
import sys
from collections.abc import Collection
from typing import Any

import jax

from prompt_jax.cli import arguments
from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config
from prompt_jax.configuration import population as population_configuration
from prompt_jax.configuration.run_files import Request
from prompt_jax.data.example import Task
from prompt_jax.errors import UserError
from prompt_jax.injections import TASK, features_of
from prompt_jax.runs.train import train
from prompt_jax.scale.here import HERE
from prompt_jax.sweeps.cell_step import compiled, step_of
from prompt_jax.sweeps.cells import Job
from prompt_jax.sweeps.check import Resolver


def resolver() -> Resolver:
  """What reads the commands of a sweep."""
  return Resolver(_arguments, _varying, [sys.executable, '-m', 'prompt_jax.cli.sweep_jobs'])


def _arguments(job: Job) -> dict[str, Any]:
  """See `Resolver`.

  Raises:
    UserError: an unknown name or macro, a value of another kind, no data.
  """
  request = _request(job.verb, job.flags)
  if job.verb == 'train':
    given = config.load('train', train, request).arguments
    return {**given, 'prompt': _for_tasks(given['prompt'], given['task'])}
  given = population_configuration.load(request).arguments
  longest = max(given['variants'], key=lambda v: v.setting.get('PROMPT_LENGTH', 0))
  prompt = _for_tasks(longest.prompt, longest.task)
  return {**given, 'prompt': prompt, 'optimizer': longest.optimizer}


def _for_tasks(prompt: Any, task: Task) -> Any:
  """A method with the number of tasks; of other features only the examples say more."""
  count = {TASK: max(1, len(task.parts))}
  return prompt.for_features(count) if TASK in features_of(prompt) else prompt


def _varying(job: Job, names: Collection[str]) -> set[str]:
  flags = [flag for flag in job.flags if not flag.startswith('--seed=')]
  return population_configuration.varying(names, _request('population', flags))


def _request(verb: str, flags: Collection[str]) -> Request:
  return request_of(arguments.parse([verb, *flags]))


def main() -> None:
  asked = json.load(sys.stdin)
  if asked['topology'] != HERE:
    jax.config.update('jax_platforms', 'cpu')
  for about in asked['jobs']:
    job = Job(about['name'], about['verb'], tuple(about['flags']), ())
    try:
      told = _figures(job, about['prompts'], asked['topology'], asked['slices'])
    except UserError as e:
      told = {'error': str(e)}
    print(json.dumps({'name': job.name, **told}), flush=True)


def _figures(job: Job, prompts: int, topology: str, slices: int) -> dict[str, Any]:
  found = compiled(step_of(_arguments(job), prompts), topology, slices)
  work, place, plan = found.work, found.place, found.plan
  rows = work.batch * min(work.prompts, work.at_once or work.prompts)  # computed at once
  return {
    'device': place.mesh.devices.flat[0].device_kind,
    'step': f'{rows} x {work.inputs} + {work.targets}',
    'how': f'{work.weights}, {place.size} {place.layout}, {work.microbatches} microbatches',
    'fits': plan.fits,
    'needed': plan.needed,
    'limit': plan.limit,
    'seconds': found.seconds,
  }


if __name__ == '__main__':
  try:
    main()
  except KeyboardInterrupt:  # at a terminal it reaches the sweep as well, which says so
    sys.exit(130)
