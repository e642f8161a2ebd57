"""Prints, as JSON, what one device and eight make of the same step of several prompts.

    export XLA_FLAGS=--xla_force_host_platform_device_count=8
    python -m tests.sharding.eight_devices_together

A process of its own: the number of devices is fixed when JAX starts.
"""

import functools
import json
import re

import jax
import numpy as np
import optax

from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.sharding import placement
from prompt_jax.testing import tiny
from prompt_jax.training.objective import CrossEntropy, split
from prompt_jax.training.optim import Update
from prompt_jax.training.step import create_state, train_step
from tests.sharding.eight_devices import CONFIG, METHODS, parameters

DROPPED = CONFIG.__class__(**{**vars(CONFIG), 'dropout_rate': 0.2})
# Four prompts are cut over four, two, all and four of these devices, three prompts over none.
MESHES = {
  'data': (4, 2),
  'tensor': (2, 4),
  'sequence': (2, 4),
  'fully_sharded': (2, 2),
  '2d': (4, 2),
}
STACKS = {'input': 4, 'hidden': 3}


def population(methods):
  """(models, trainable leaves, backbone, batches), all of them different."""
  rng = np.random.default_rng(0)
  models, prompts, batches = [], [], []
  for method in methods:
    model = PromptedT5(T5(DROPPED), METHODS[method])
    params, _ = parameters(PromptedT5(T5(CONFIG), METHODS[method]))
    trainable, frozen = split(params)
    models.append(model)
    prompts.append(jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype('f'), trainable))
    batches.append(jax.tree.map(np.asarray, tiny.batch(rows=16, seed=len(batches))))
  return models, prompts, frozen, batches


def compiled(methods, place, dropout=False, **options):
  """The step, compiled, and its arguments."""
  models, prompts, frozen, batches = population(methods)
  nothing, updates = [{} for _ in models], [Update(optax.sgd(1.0)) for _ in models]
  states = [create_state(prompt, updates[0], seed) for seed, prompt in enumerate(prompts)]
  step = functools.partial(
    train_step,
    objectives=[CrossEntropy(model, dropout=dropout) for model in models],
    updates=updates,
    placement=place,
    **options,
  )
  jitted = jax.jit(step)
  if place:
    frozen = jax.device_put(frozen, place.shardings(frozen))
    states, batches = place.put(states, place.replicated), place.put_rows(batches)
    jitted = jax.jit(place.with_mesh(step), out_shardings=place.replicated)
  arguments = states, frozen, nothing, nothing, batches
  return jitted.lower(*arguments).compile(), arguments


def gradients(place, at_once):
  """(loss, gradient) of each prompt."""
  methods = [name for name, count in STACKS.items() for _ in range(count)]
  step, arguments = compiled(methods, place, at_once=at_once, microbatches=2, dropout=True)
  after, metrics = step(*arguments)
  pairs = zip(arguments[0], after, strict=True)
  found = [jax.tree.map(lambda x, y: np.asarray(x) - y, a.trainable, b.trainable) for a, b in pairs]
  return [float(m['loss']) for m in metrics], found


def largest(tree) -> float:
  return max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))


def differences():
  """layout -> the largest difference of a loss and of a gradient; "groups": with `at_once`."""
  losses, wanted = gradients(None, at_once=4)
  found = {}
  for name, layout, at_once in (*((n, n, None) for n in MESHES), ('groups', 'data', 2)):
    got = gradients(placement.make(MESHES[layout], layout, jax.devices()), at_once)
    found[name] = {
      'loss': max(abs(a / b - 1) for a, b in zip(got[0], losses, strict=True)),
      'gradient': max(
        largest(jax.tree.map(np.subtract, a, b)) / largest(b)
        for a, b in zip(got[1], wanted, strict=True)
      ),
    }
  return found


def held():
  """What a device holds of the values of a step, of what one device alone holds.

  And whether four prompts, and three, need a sum over devices.
  """
  place = placement.make((4, 1), 'data', jax.devices())
  step = lambda count, place: compiled(['input'] * count, place, at_once=count)[0]
  alone, four, three = step(4, None), step(4, place), step(3, place)
  bytes_of = lambda found: found.memory_analysis().temp_size_in_bytes
  summed = [bool(re.search(r'\ball-reduce', found.as_text())) for found in (four, three)]
  return {'memory': bytes_of(four) / bytes_of(alone), 'summed': summed}


def main() -> None:
  assert jax.device_count() == 8
  print(json.dumps({'held': held(), **differences()}))


if __name__ == '__main__':
  main()
