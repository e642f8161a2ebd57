"""Programs compiled beside each other, before their batches come."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import toy_batch
from toy_run import ToyStream, toy_train

from prompt_jax.training.step import CompiledStep, StepArguments
from prompt_jax.training.streams import Streams


class KnownShapes(ToyStream):
  """Batches of 8 and of 4 rows in turn."""

  shapes = (8, 4)

  def upcoming_shapes(self, count):
    return [toy_batch(rows) for rows in self.shapes[:count]]

  def __iter__(self):
    while True:
      number = self.position['next']
      batch = toy_batch(self.shapes[number % len(self.shapes)], seed=number)
      self.position['next'] += 1
      yield batch


def _step(total, batch, factor):
  return total + factor * jnp.sum(batch)


@pytest.fixture
def step():
  return jax.jit(_step, donate_argnums=0, static_argnames='factor')


def test_upcoming_calls_take_their_programs_and_others_compile(step):
  short, long, other = (jnp.ones(n) for n in (3, 5, 7))
  calls = [StepArguments((jnp.float32(0), x), {'factor': 2}) for x in (short, long)]
  with CompiledStep(step, calls) as compiled:
    ahead = lambda *arrays, **static: compiled(StepArguments(arrays, static))
    total = jnp.float32(1)
    for x in (short, long, short):
      given, total = total, ahead(total, x, factor=2)
      assert given.is_deleted(), 'what the step may overwrite, its program may too'
    assert step._cache_size() == 0
    assert float(total) == 1 + 2 * 11
    assert float(ahead(total, other, factor=2)) == 23 + 2 * 7
    assert step._cache_size() == 1
    assert float(ahead(jnp.float32(0), short, factor=3)) == 9, 'static arguments are part of it'


def test_a_program_has_the_precision_of_the_callers_thread():
  product = jax.jit(lambda x: x @ x)
  asked = []

  class Spy:
    def lower(self, x):
      lowered = product.lower(x)
      asked.append(lowered.as_text())
      return lowered

  with (
    jax.default_matmul_precision('highest'),
    CompiledStep(Spy(), [StepArguments((jnp.ones((2, 2)),), {})]),
  ):
    assert 'HIGHEST' in asked[0]


def test_a_run_compiles_the_shapes_to_come_and_ends_with_the_same_bytes(tmp_path, monkeypatch):
  said = []
  first = CompiledStep.__init__
  monkeypatch.setattr(
    CompiledStep,
    '__init__',
    lambda self, step, calls: said.append(len(calls)) or first(self, step, calls),
  )
  plain = toy_train(tmp_path / 'plain', stream=_unknown_shapes(), steps=5)
  ahead = toy_train(tmp_path / 'ahead', stream=KnownShapes(), steps=5)
  assert said == [0, 2]
  for a, b in zip(*map(jax.tree.leaves, (plain.trainable, ahead.trainable)), strict=True):
    np.testing.assert_array_equal(a, b)
  assert plain.file.read_bytes() == ahead.file.read_bytes()


def _unknown_shapes():
  stream = KnownShapes()
  return type('Plain', (ToyStream,), {'__iter__': KnownShapes.__iter__, 'shapes': stream.shapes})()


def test_streams_know_the_shapes_that_all_of_them_do():
  one, other = KnownShapes(), KnownShapes()
  both = Streams({'a': one, 'b': other}).upcoming_shapes(9)
  assert [[len(b.encoder_input_tokens) for b in batches] for batches in both] == [[8, 8], [4, 4]]
  other.shapes = (4, 8)
  assert Streams({'a': one, 'b': other}).upcoming_shapes(9) == []
  assert Streams({'a': one, 'b': ToyStream()}).upcoming_shapes(9) == []
