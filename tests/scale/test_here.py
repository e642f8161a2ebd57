"""Plans for the devices of this machine, and how much memory they have."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from prompt_jax.batch import Batch
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.multitask.task_prompts import TaskPrompts
from prompt_jax.scale import here, memory
from prompt_jax.scale.plan import train_flops
from prompt_jax.scale.program import Work, abstract_variables, lowered
from prompt_jax.training.objective import CrossEntropy, split
from prompt_jax.training.optim import Update
from prompt_jax.training.step import create_state, jit_train_step

CONFIG = T5Config(512, 64, 4, 16, 2, 2, 128)
WORK = Work(CONFIG, InputPrompt(length=28), 'float32', batch=8, inputs=100, targets=16)
# Embedding and logits, attention of three kinds, gated feed-forward layers.
KERNELS = 4 * 2 * 64 * 64 + 2 * 3 * 64 * 128  # of the encoder, and as many in the decoder
WEIGHTS = 2 * 512 * 64 + 2 * KERNELS + 2 * 4 * 64 * 64


def planned(work, mesh=None, layout='data'):
  return here.plan(work, here.placement(mesh, layout, None, jax.devices()))


def test_memory_is_that_of_the_program_that_runs():
  found = planned(WORK)
  assert 1 <= found.memory.arguments / (4 * WEIGHTS) < 1.1
  half = planned(dataclasses.replace(WORK, microbatches=4))
  assert half.memory.temporaries < 0.5 * found.memory.temporaries
  assert half.memory.arguments == found.memory.arguments
  assert found.fits
  assert found.cost is None


def test_what_the_machine_has_not_does_not_fit(monkeypatch):
  monkeypatch.setattr(memory, 'available', lambda: 10**6)
  found = planned(WORK)
  assert not found.fits
  assert found.needed > found.limit == 10**6
  assert found.memory.total == found.needed


def test_the_floor_is_the_least_flops_at_the_measured_rate(monkeypatch):
  monkeypatch.setattr(here, 'rate', lambda device, dtype: 1e9)
  found = planned(WORK)
  assert found.least_flops == train_flops(WORK)
  assert found.ideal_seconds == pytest.approx(train_flops(WORK) / 1e9)
  everything = dataclasses.replace(WORK, method=None, patterns=('.*',))
  # 2 a weight and position more: 800 positions of the encoder, 128 of the decoder.
  frozen = dataclasses.replace(WORK, inputs=72)
  more = planned(dataclasses.replace(everything, inputs=100)).least_flops - train_flops(frozen)
  products = 800 * (KERNELS + 2 * 2 * 64 * 64) + 128 * (KERNELS + 2 * 2 * 64 * 64 + 512 * 64)
  assert more == pytest.approx(2 * products, rel=0.01)


def test_the_rate_is_measured_and_no_peak():
  n, x = 512, np.ones((512, 512), np.float32)
  assert 1e8 < here.rate(jax.devices()[0], 'float32') < 1e14
  assert (x @ x)[0, 0] == n


def test_all_weights_that_train_are_state_in_float32():
  tuned = dataclasses.replace(WORK, method=None, patterns=('.*',))
  stored = planned(dataclasses.replace(tuned, weights='bfloat16', optimizer=optax.sgd(0.1)))
  assert 1 <= stored.memory.arguments / (4 * WEIGHTS) < 1.1
  # With a moment of each weight, twice as much.
  moments = planned(dataclasses.replace(tuned, weights='bfloat16'))
  assert 2 <= moments.memory.arguments / (4 * WEIGHTS) < 2.1


def test_prompts_of_one_run_are_one_program():
  three = dataclasses.replace(WORK, prompts=3)
  at_once, in_turn = planned(three), planned(dataclasses.replace(three, at_once=1))
  assert at_once.least_flops == 3 * train_flops(WORK)
  assert in_turn.memory.arguments == at_once.memory.arguments
  # The activations of one prompt, and the gradients of three.
  one = planned(WORK).memory.temporaries
  assert in_turn.memory.temporaries < 1.5 * one
  assert at_once.memory.temporaries > 2 * one


def test_a_plan_is_of_the_step_that_a_run_compiles():
  """On the mesh of the plan, with arrays in place of shapes."""
  place = here.placement(None, 'data', None, jax.devices())
  optimizer = optax.sgd(0.1)
  work = dataclasses.replace(WORK, optimizer=optimizer, microbatches=2)
  params, _ = abstract_variables(work)
  drawn = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params)
  trainable, frozen = split(drawn)
  objective = CrossEntropy(PromptedT5(T5(CONFIG), WORK.method))
  update = Update(optimizer)
  tokens = np.ones((8, 100), np.int32)
  targets = np.ones((8, 16), np.int32)
  batch = Batch(tokens, targets, targets, targets.astype(np.float32))
  step = jit_train_step(microbatches=2, placement=place)
  states = place.replicate([create_state(trainable, update, 0)])
  run = step.lower(
    states,
    place.put_params(frozen),
    [{}],
    [{}],
    place.put_rows([batch]),
    objectives=(objective,),
    updates=(update,),
  )
  assert lowered(work, place).as_text() == run.as_text()


def test_a_prompt_for_each_task_gets_the_number_of_the_task():
  method = TaskPrompts(tasks=3, length=28)
  assert planned(dataclasses.replace(WORK, method=method)).fits


def test_dropout_is_part_of_the_program():
  config = dataclasses.replace(CONFIG, dropout_rate=0.1)
  with_masks = planned(dataclasses.replace(WORK, config=config))
  assert with_masks.memory.temporaries > planned(WORK).memory.temporaries


@pytest.fixture
def machine(tmp_path):
  """A machine with 8000 kB available, in control groups."""
  (tmp_path / 'proc/self').mkdir(parents=True)
  (tmp_path / 'proc/meminfo').write_text('MemTotal: 9000 kB\nMemAvailable: 8000 kB\n')
  return tmp_path


def group(folder, limit, used, files, names=('memory.max', 'memory.current', 'inactive_file')):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / names[0]).write_text(f'{limit}\n')
  (folder / names[1]).write_text(f'{used}\n')
  (folder / 'memory.stat').write_text(f'anon 5\n{names[2]} {files}\n')


def test_without_control_groups_it_is_what_the_machine_has(machine):
  assert memory.available(machine) == 8000 * 1024


def test_a_container_has_what_its_groups_leave(machine):
  (machine / 'proc/self/cgroup').write_text('0::/a/b\n')
  top = machine / 'sys/fs/cgroup'
  group(top / 'a/b', 'max', 100, 0)
  assert memory.available(machine) == 8000 * 1024
  group(top / 'a', 5_000_000, 2_000_000, 500_000)
  assert memory.available(machine) == 3_500_000
  group(top, 1_000_000, 300_000, 0)
  assert memory.available(machine) == 700_000


def test_a_container_of_version_1_may_see_its_group_as_the_root(machine):
  (machine / 'proc/self/cgroup').write_text('5:cpu:/x\n4:memory:/docker/c0ffee\n')
  names = ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file')
  group(machine / 'sys/fs/cgroup/memory', 4_000_000, 1_000_000, 200_000, names)
  assert memory.available(machine) == 3_200_000
  group(machine / 'sys/fs/cgroup/memory/docker/c0ffee', 2_000_000, 1_900_000, 0, names)
  assert memory.available(machine) == 100_000
