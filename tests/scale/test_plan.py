"""Plans by the TPU compiler itself; skipped where libtpu is not installed."""

import dataclasses
import functools
import importlib.util

import pytest

from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from prompt_jax.prompts.initializers import FromFile, Text
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.adept import ADePT
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.prompts.tables import Plain
from prompt_jax.scale import plan as planning
from prompt_jax.scale.program import Work, prompt_rows
from tests.shared import facts

CONFIG = T5Config(512, 256, 4, 64, 3, 3, 512, dtype='bfloat16')
WORK = Work(CONFIG, InputPrompt(length=28), batch=8, inputs=100, targets=16)
needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed'
)


@functools.lru_cache(None)
def planned(work, topology='v5e-4', mesh=None, layout='data'):
  return planning.plan(work, topology, planning.placement(topology, mesh, layout))


@needs_libtpu
def test_a_data_parallel_step_does_the_necessary_work_and_few_collectives():
  found = planned(WORK)
  assert found.fits
  assert 1 <= found.cost.flops / (planning.train_flops(WORK) / 4) < 1.1
  # The prompt's gradient, float32[28, 256] over a ring of 4, and a few scalars; never a weight's.
  (sums,) = found.cost.collectives.values()
  assert sums.count <= 4
  assert 1 <= sums.bytes / (28 * 256 * 4 * 2 * 3 / 4) < 1.01
  assert found.cost.unknown_loops == 0
  assert found.cost.roofline_seconds > found.ideal_seconds
  # The weights are whole on each device: 2 bytes each.
  weights = 2 * (2 * 512 * 256 + 3 * (4 + 8) * 256 * 256 + 6 * 3 * 256 * 512)
  assert weights < found.memory.arguments < 1.1 * weights


@needs_libtpu
def test_the_tensor_layout_cuts_the_weights_and_pays_by_collectives():
  data, tensor = planned(WORK), planned(WORK, mesh=(1, 4), layout='tensor')
  assert tensor.memory.arguments < 0.4 * data.memory.arguments
  # Two sums a layer forward and two backward, at the least.
  assert sum(t.count for t in tensor.cost.collectives.values()) >= 4 * 6


@needs_libtpu
def test_the_sequence_layout_sends_no_more_and_sums_into_parts():
  # 100 tokens and 28 rows of the prompt: 128 positions over 4.
  tensor, sequence = (planned(WORK, mesh=(1, 4), layout=x) for x in ('tensor', 'sequence'))
  # The encoder's sums, two a layer in each direction, have become reduce-scatters and gathers.
  halves = sequence.cost.collectives['reduce-scatter'].bytes
  assert halves > 4 * 3 * 8 * 128 * 256 * 2 * 3 / 4
  sums = lambda plan: plan.cost.collectives['all-reduce'].bytes
  assert sums(sequence) < 0.2 * sums(tensor)
  sent = lambda plan: sum(t.bytes for t in plan.cost.collectives.values())
  assert sent(sequence) < 1.05 * sent(tensor)
  assert sequence.cost.flops == pytest.approx(tensor.cost.flops, rel=0.01)


@needs_libtpu
def test_two_slices_exchange_little_more_than_the_gradient():
  place = planning.placement('v5e-4', (2, 4), 'tensor', 2)
  assert [len({d.slice_index for d in row}) for row in place.mesh.devices] == [1, 1]
  found = planning.plan(WORK, 'v5e-4', place)
  # The prompt's gradient, float32[28, 256], and a few scalars.
  assert 1 <= found.cost.between_slices.bytes / (28 * 256 * 4) < 1.3
  assert found.cost.collectives['all-reduce'].bytes > 10 * found.cost.between_slices.bytes


@needs_libtpu
def test_the_kernel_of_attention_compiles_and_its_work_is_counted():
  config = dataclasses.replace(CONFIG, attention='fused')
  work = dataclasses.replace(WORK, config=config, inputs=128)  # 156 positions: no whole vectors
  found = planned(work, mesh=(2, 2), layout='tensor')
  assert found.cost.kernel_seconds > 0
  # A tenth of it is the kernel's.
  assert 1 <= found.cost.flops / (planning.train_flops(work) / 4) < 1.05


@needs_libtpu
@pytest.mark.parametrize('attention', ['plain', 'fused'])
@pytest.mark.parametrize(
  'method',
  [PrefixTuning(length=28, table=Plain()), DeepPrompt(length=28), ADePT(length=28, rank=4)],
  ids=['kv', 'hidden', 'delta'],
)
def test_whatever_a_method_injects_is_planned_for_the_cut_layouts_too(method, attention):
  """The backward pass through frozen weights stays what it is: no method makes weight gradients."""
  config = dataclasses.replace(CONFIG, attention=attention)
  work = dataclasses.replace(WORK, config=config, method=method)
  found = planned(work, mesh=(2, 2), layout='tensor')
  assert found.fits
  assert found.cost.unknown_loops == 0
  # Keys of a prefix are pairs without rows, and small matrices of a method come on top.
  assert 0.95 < found.cost.flops / (planning.train_flops(work) / 4) < 1.2


@needs_libtpu
def test_what_does_not_fit_is_said_not_to_fit():
  wide = dataclasses.replace(CONFIG, emb_dim=8192, mlp_dim=65536)  # 19 GB
  found = planned(dataclasses.replace(WORK, config=wide))
  assert not found.fits
  assert found.needed > found.limit == int(15.75 * 2**30)


@needs_libtpu
@pytest.mark.parametrize('step', ['eval', 'decode'])
def test_evaluation_and_decoding_are_planned_too(step):
  found = planned(dataclasses.replace(WORK, step=step))
  assert found.fits
  # The encoder alone, forward: 2 a weight and token.
  encoder = 2 * 8 * 128 * 3 * (4 * 256 * 256 + 3 * 256 * 512) / 4
  assert encoder < found.cost.flops < 3 * encoder
  assert found.ideal_seconds is None


def test_a_mesh_of_another_size_is_refused():
  with pytest.raises(UserError, match=facts('2x1', '2', 'v5e-4', '4')):
    planning.placement('v5e-4', (2, 1), 'data')


def test_unknown_names_are_refused():
  with pytest.raises(UserError, match=facts("'v5e-5'", "'v5e-4'")):
    planning.placement('v5e-5', None, 'data')
  with pytest.raises(UserError, match="'int4'"):
    dataclasses.replace(WORK, weights='int4')
  with pytest.raises(UserError, match=facts('3', 'microbatches')):
    dataclasses.replace(WORK, microbatches=3)


def test_without_libtpu_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=facts('pip install', '.[tpu]')):
    planning.placement('v5e-4', None, 'data')


def test_rows_of_the_prompt_are_counted_and_keys_are_not():
  assert prompt_rows(WORK) == 28
  assert prompt_rows(dataclasses.replace(WORK, method=PrefixTuning(length=5))) == 0


def test_initialisers_of_texts_and_files_change_nothing_in_a_plan():
  for initializer in (Text('a b'), FromFile('not there')):
    method = InputPrompt(length=4, table=Plain(initializer=initializer))
    assert prompt_rows(dataclasses.replace(WORK, method=method)) == 4
