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


def differences(*arguments):
  """What `eight_devices` prints, by layout."""
  return json.loads(on_eight('eight_devices', *arguments).stdout.splitlines()[-1])


@pytest.mark.parametrize('method', ['input', 'kv', 'delta', 'hidden', 'fused', 'cudnn'])
def test_loss_gradient_and_decoded_tokens_of_eight_devices_are_those_of_one(method):
  found = differences(method)
  assert found.keys() == LAYOUTS.keys()
  for layout, difference in found.items():
    assert difference['loss'] < 1e-5, layout
    assert difference['gradient'] < 1e-4, layout
    assert difference['tokens'] == 0, layout
    low, high = HELD[layout]
    assert low <= difference['held'] <= high, layout


@pytest.mark.parametrize('method', ['input', 'kv', 'apart', 'tasks'])
def test_packed_rows_over_eight_devices_are_those_of_one(method):
  for layout, difference in differences(method, 'packed').items():
    assert difference['loss'] < 1e-5, layout
    assert difference['gradient'] < 1e-5, layout
