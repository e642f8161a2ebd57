"""Several prompts on eight devices are those of one, whether they divide over them or not."""

import json

import pytest

from prompt_jax.sharding.layouts import LAYOUTS
from tests.sharding.fake_devices import on_eight


@pytest.fixture(scope='module')
def found():
  return json.loads(on_eight('eight_devices_together').stdout.splitlines()[-1])


@pytest.mark.parametrize('name', [*LAYOUTS, 'groups'])
def test_losses_and_gradients_of_eight_devices_are_those_of_one(found, name):
  assert found[name]['loss'] < 1e-5
  assert found[name]['gradient'] < 1e-4


def test_a_device_holds_its_share_of_the_values_of_a_step(found):
  assert found['held']['memory'] < 0.35


def test_prompts_that_divide_over_the_devices_need_no_sum_over_them(found):
  assert found['held']['summed'] == [False, True]
