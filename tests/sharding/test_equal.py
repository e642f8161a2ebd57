"""Eight devices compute what one does, for every layout, kind of injection and packed rows."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from prompt_jax.sharding.layouts import LAYOUTS

ROOT = pathlib.Path(__file__).parent.parent.parent
# Compiling is nearly all of the time, and running nearly none.
FLAGS = (
  '--xla_force_host_platform_device_count=8',
  '--xla_backend_optimization_level=0',
  '--xla_llvm_disable_expensive_passes=true',
)
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
  done = subprocess.run(
    [sys.executable, '-m', 'tests.sharding.eight_devices', *arguments],
    env={**os.environ, 'XLA_FLAGS': ' '.join(FLAGS), 'JAX_PLATFORMS': 'cpu'},
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout.splitlines()[-1])


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
