"""A process that compiles the steps of some runs: `python -m prompt_jax.sweeps.compile`.

The sweep itself keeps off the devices, which its runs need, and the compiler of TPU slices sets
environment variables that a run on a real slice must not have.

Reads JSON {"topology": ..., "slices": ..., "jobs": [{"name", "verb", "flags", "prompts"}, ...]} and
writes a line of JSON for each job as it is done.
"""

import json
import sys
from typing import Any

import jax

from prompt_jax.errors import UserError
from prompt_jax.scale.here import HERE
from prompt_jax.sweeps.cell_step import compiled, step_of
from prompt_jax.sweeps.cells import Job
from prompt_jax.sweeps.check import made


def main() -> None:
  asked = json.load(sys.stdin)
  if asked['topology'] != HERE:
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_enable_compilation_cache', False)  # which cannot be read without a TPU
  for about in asked['jobs']:
    job = Job(about['name'], about['verb'], tuple(about['flags']), ())
    try:
      told = _figures(job, about['prompts'], asked['topology'], asked['slices'])
    except UserError as e:
      told = {'error': str(e)}
    print(json.dumps({'name': job.name, **told}), flush=True)


def _figures(job: Job, prompts: int, topology: str, slices: int) -> dict[str, Any]:
  found = compiled(step_of(made(job), prompts), topology, slices)
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
