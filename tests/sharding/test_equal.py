"""Eight devices compute what one does, for every layout, kind of injection and packed rows."""

import json

import pytest

from prompt_jax.sharding.layouts import LAYOUTS
from tests.sharding.fake_devices import on_eight

# What the first device holds of the model: all of it, or its part of the kernels and the rest.
HELD = {
  'data': (1, 1),
  'tensor': (0.2, 0.4),
  'sequence': (0.2, 0.4),
  'fully_sharded': (0.1, 0.2),
  '2d': (0.1, 0.2),
}


# Each set in one process, where importing and the model are paid for once; 'inside' has keys and
# values too.
METHODS = ['input', 'inside', 'delta', 'hidden', 'fused', 'cudnn']
PACKED = ['input', 'kv', 'apart', 'tasks']


@pytest.fixture(scope='module')
def found():
  """What `eight_devices` prints, by method and layout."""
  return json.loads(on_eight('eight_devices', *METHODS).stdout.splitlines()[-1])


@pytest.fixture(scope='module')
def packed():
  return json.loads(on_eight('eight_devices', *PACKED, 'packed').stdout.splitlines()[-1])


@pytest.mark.parametrize('method', METHODS)
def test_loss_gradient_and_decoded_tokens_of_eight_devices_are_those_of_one(found, method):
  assert found[method].keys() == LAYOUTS.keys()
  for layout, difference in found[method].items():
    assert difference['loss'] < 1e-5, layout
    assert difference['gradient'] < 1e-4, layout
    assert difference['tokens'] == 0, layout
    low, high = HELD[layout]
    assert low <= difference['held'] <= high, layout


@pytest.mark.parametrize('method', PACKED)
def test_packed_rows_over_eight_devices_are_those_of_one(packed, method):
  assert packed[method].keys() == {'data', 'sequence'}
  for layout, difference in packed[method].items():
    assert difference['loss'] < 1e-5, layout
    assert difference['gradient'] < 1e-5, layout
