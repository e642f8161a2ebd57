"""What a search tries and in which order, with a compiler of our own invention."""

import dataclasses

import pytest

from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from prompt_jax.scale import search as ways
from prompt_jax.scale.cost import Cost
from prompt_jax.scale.plan import Memory, Plan
from prompt_jax.scale.program import Work
from prompt_jax.scale.search import Given, Setting, first, meshes, search, smallest
from prompt_jax.sharding.layouts import LAYOUTS, MeshSize

CONFIG = T5Config(64, 32, 4, 8, 2, 2, 48, dtype='bfloat16')
WORK = Work(CONFIG, None, batch=16)


@pytest.fixture(autouse=True)
def light_weights(monkeypatch):
  """Weights of no size: what fits is up to each test's compiler, and libtpu is not needed."""
  monkeypatch.setattr(ways, 'weight_bytes', lambda work, setting: 0)


def result(fits: bool, seconds: float) -> Plan:
  if not fits:
    return Plan(False, 2, 1, None, None, 0.0, None)
  return Plan(True, 1, 2, Memory(1, 0, 0), Cost(0, 0, 0, seconds, 0, {}, 0, 0), 0.0, None)


class Compiler:
  """Fits where `room` says so; twice the microbatches take a tenth less time up to `best`."""

  def __init__(self, room, best=4):
    self.room, self.best, self.tried = room, best, []

  def __call__(self, work: Work, setting: Setting) -> Plan:
    self.tried.append(setting)
    away = abs(setting.microbatches.bit_length() - self.best.bit_length())
    return result(self.room(setting), 1 + away / 10)


def test_microbatches_are_doubled_until_it_fits_and_while_it_gets_faster():
  compiler = Compiler(lambda s: s.microbatches >= 2)
  found = search(WORK, 'v5e-1', attempt=compiler)
  assert [s.microbatches for s in compiler.tried if s.weights == 'bfloat16'] == [1, 2, 4, 8]
  assert found[0].setting.microbatches == 4
  assert {f.setting.remat for f in found} == {'cheap'}
  times = [f.plan.estimate_seconds for f in found]
  assert times == sorted(times)


def test_all_is_computed_again_only_where_nothing_else_was_enough():
  found = search(WORK, 'v5e-1', attempt=Compiler(lambda s: s.remat == 'all'))
  assert {f.setting.remat for f in found} == {'all'}


def test_every_layout_is_tried_and_one_that_does_not_divide_is_left_out():
  layouts = lambda found: {(f.setting.layout, f.setting.mesh) for f in found}
  fits = Compiler(lambda setting: True)
  assert layouts(search(WORK, 'v5e-4', attempt=fits)) == set(meshes(4))
  three_heads = dataclasses.replace(WORK, config=dataclasses.replace(CONFIG, num_heads=3))
  whole = {(layout, size) for layout, size in meshes(4) if size.model == 1}
  assert layouts(search(three_heads, 'v5e-4', attempt=fits)) == whole
  odd_batch = dataclasses.replace(WORK, batch=6)
  assert {size.data for _, size in layouts(search(odd_batch, 'v5e-4', attempt=fits))} == {1, 2}


def test_what_is_refused_for_another_reason_is_told():
  def room(setting):
    raise UserError('libtpu is not installed')

  for call in (search, smallest):
    with pytest.raises(UserError, match='libtpu'):
      call(WORK, 'v5e-4', attempt=Compiler(room))


def test_weights_that_do_not_fit_are_never_compiled(monkeypatch):
  heavy = lambda work, setting: 1 << 50 if setting.weights == 'bfloat16' else 0
  monkeypatch.setattr(ways, 'weight_bytes', heavy)
  compiler = Compiler(lambda s: True)
  search(WORK, 'v5e-1', attempt=compiler)
  assert {s.weights for s in compiler.tried} == {'int8'}


def test_the_smallest_slice_is_of_the_same_chips_and_the_first_that_fits():
  compiler = Compiler(lambda s: s.mesh.data * s.mesh.model >= 8)
  found = smallest(WORK, 'v5e-64', attempt=compiler)
  assert found.setting.topology == 'v5e-8'
  assert {s.topology for s in compiler.tried} == {'v5e-1', 'v5e-4', 'v5e-8'}
  assert smallest(WORK, 'v4-8', attempt=Compiler(lambda s: False)) is None


def test_the_first_way_that_fits_keeps_weights_whole_and_wide_where_it_can():
  tried = lambda compiler: [(s.layout, s.weights, s.microbatches, s.remat) for s in compiler.tried]
  whole = Compiler(lambda s: s.weights == 'int8' and s.microbatches == 2)
  found = first(WORK, 'v5e-4', Given(remat='cheap'), whole)
  assert found.setting == whole.tried[-1] == Setting('v5e-4', 'data', (4, 1), 'int8', 2, 'cheap')
  # 16 rows over four devices make four microbatches at the most.
  assert tried(whole) == [('data', 'bfloat16', n, 'cheap') for n in (1, 2, 4)] + [
    ('data', 'int8', n, 'cheap') for n in (1, 2)
  ]
  cut = Compiler(lambda s: s.layout != 'data')
  assert first(WORK, 'v5e-4', attempt=cut).setting.layout == 'tensor'
  assert first(WORK, 'v5e-4', attempt=Compiler(lambda s: False)) is None


def test_what_is_given_is_kept_and_the_rest_is_tried():
  fits = Compiler(lambda s: True)
  search(WORK, 'v5e-4', Given(layout='tensor', weights='int8', microbatches=2), fits)
  assert {(s.layout, s.weights, s.microbatches) for s in fits.tried} == {('tensor', 'int8', 2)}
  assert {s.mesh for s in fits.tried} == {(2, 2), (1, 4)}
  fits.tried.clear()
  found = search(WORK, 'v5e-4', Given(mesh=MeshSize(2, 2), remat='all'), fits)
  assert {(s.mesh, s.remat) for s in fits.tried} == {((2, 2), 'all')}
  assert {f.setting.layout for f in found} == set(LAYOUTS)
  with pytest.raises(UserError, match="'tensors'"):
    search(WORK, 'v5e-4', Given(layout='tensors'), fits)


def test_how_far_a_search_is_can_be_shown():
  passed = []

  def shown(ways):
    for way in ways:
      passed.append(way)
      yield way

  search(WORK, 'v5e-4', attempt=Compiler(lambda s: False), shown=shown)
  assert len(passed) == 2 * len(list(meshes(4)))


def test_one_device_has_one_layout():
  assert [layout for layout, _ in meshes(1)] == ['data']
