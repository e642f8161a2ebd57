"""Several prompts on eight devices are those of one, whether they divide over them or not."""

import json
import os
import subprocess
import sys

import pytest

from prompt_jax.sharding.layouts import LAYOUTS
from tests.sharding.test_equal import FLAGS, ROOT


@pytest.fixture(scope='module')
def found():
  done = subprocess.run(
    [sys.executable, '-m', 'tests.sharding.eight_devices_together'],
    env={**os.environ, 'XLA_FLAGS': ' '.join(FLAGS), 'JAX_PLATFORMS': 'cpu'},
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('name', [*LAYOUTS, 'groups'])
def test_losses_and_gradients_of_eight_devices_are_those_of_one(found, name):
  assert found[name]['loss'] < 1e-5
  assert found[name]['gradient'] < 1e-4


def test_a_device_holds_its_share_of_the_values_of_a_step(found):
  assert found['held']['memory'] < 0.35


def test_prompts_that_divide_over_the_devices_need_no_sum_over_them(found):
  assert found['held']['summed'] == [False, True]
