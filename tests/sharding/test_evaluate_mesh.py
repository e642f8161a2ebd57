"""`prompt-jax eval` and `infer` answer on eight devices as on one, whatever the prompt injects."""

import json

import pytest

from prompt_jax.sharding.layouts import LAYOUTS
from tests.sharding.fake_devices import on_eight
from tests.sharding.test_equal import HELD


@pytest.fixture(scope='module')
def done(tmp_path_factory):
  return on_eight('eight_devices_evaluate', tmp_path_factory.mktemp('all'))


@pytest.fixture(scope='module')
def found(done):
  return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize('layout', LAYOUTS)
def test_scores_of_eight_devices_are_those_of_one(found, layout):
  assert found['spread'] > 0.1
  assert max(found[layout]['scores'].values()) < 1e-4


@pytest.mark.parametrize('layout', ['data', '2d'])
def test_what_is_drawn_on_eight_devices_is_what_is_drawn_on_one(found, layout):
  assert found['drawn'] > 5
  assert found[layout]['answers']


@pytest.mark.parametrize('layout', LAYOUTS)
def test_tuned_weights_are_cut_as_the_layout_says(found, layout):
  low, high = HELD[layout]
  assert low <= found[layout]['held'] <= high


def test_a_mesh_over_which_the_model_does_not_divide_is_refused(done, found):
  assert found['refused'] == [2, 2]
  for fact in ('4 attention heads', 'into 8 parts', '2x4', '--mesh'):
    assert done.stderr.count(fact) == 2, fact
