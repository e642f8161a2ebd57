"""Which device stands where in a mesh of several slices, and what is refused."""

import types

import jax
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.sharding import placement
from prompt_jax.sharding.layouts import MeshSize
from prompt_jax.sharding.slices import count_slices, device_grid
from tests.shared import facts


def devices(count=8, platform='cpu', **of_each):
  """Fake devices; each of `of_each` is a function of the device's number."""
  return [
    types.SimpleNamespace(
      id=i, platform=platform, device_kind=platform, **{k: f(i) for k, f in of_each.items()}
    )
    for i in range(count)
  ]


def ids(mesh):
  return [[d.id for d in row] for row in mesh]


def test_slices_follow_one_another_along_data_and_model_stays_within_one():
  # Odd numbers are of slice 0.
  found = device_grid(MeshSize(4, 2), devices(slice_index=lambda i: 1 - i % 2), 2)
  assert ids(found) == [[1, 3], [5, 7], [0, 2], [4, 6]]


@pytest.mark.parametrize('more', [{}, {'slice_index': lambda i: 0}], ids=['absent', 'all the same'])
def test_a_process_is_a_slice_where_devices_do_not_tell(more):
  found = device_grid(MeshSize(4, 2), devices(process_index=lambda i: i % 2, **more), 2)
  assert ids(found) == [[0, 2], [4, 6], [1, 3], [5, 7]]


def test_without_slices_devices_stand_in_their_order_whatever_gpus_tell():
  given = devices(platform='gpu', slice_index=lambda i: i // 4)
  assert ids(device_grid(MeshSize(2, 4), given, 1)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
  assert ids(device_grid(MeshSize(1, 8), given, 1)) == [list(range(8))]


def test_tpus_of_two_slices_are_not_taken_for_one():
  given = devices(platform='tpu', slice_index=lambda i: i // 4)
  with pytest.raises(UserError, match=facts('1', '2', 'slices')):
    device_grid(MeshSize(2, 4), given, 1)


def test_only_tpus_tell_that_they_are_of_several_slices():
  halves = lambda i: i // 4
  assert count_slices(devices(platform='tpu', slice_index=halves)) == 2
  assert count_slices(devices(platform='gpu', slice_index=halves)) == 1
  assert count_slices(devices()) == 1


@pytest.mark.parametrize(
  ('size', 'slices', 'message'),
  [
    ((4, 2), 3, facts('4', '3', '6x2')),
    ((1, 8), 2, facts('1', '2', '2x8')),
    ((8, 1), 4, facts('4', '2', 'slices')),
  ],
)
def test_slices_that_are_not_there_are_refused(size, slices, message):
  given = devices(slice_index=lambda i: i // 4, process_index=lambda i: i)
  with pytest.raises(UserError, match=message):
    device_grid(MeshSize(*size), given, slices)


def test_processes_of_another_number_and_unequal_slices_are_refused():
  with pytest.raises(UserError, match=facts('8', 'process')):
    device_grid(MeshSize(4, 2), devices(process_index=lambda i: i), 2)
  with pytest.raises(UserError, match=facts('6', '2', 'slices')):
    device_grid(MeshSize(4, 2), devices(slice_index=lambda i: i // 6), 2)


@pytest.mark.parametrize('slices', [0, 1.5, True, '2'])
def test_what_is_no_number_of_slices_is_refused(slices):
  with pytest.raises(UserError, match=facts('slices', repr(slices), '1')):
    placement.make((1, 1), 'data', jax.devices(), slices)


def test_one_process_of_cpus_is_one_slice():
  given, found = (placement.make((1, 1), 'data', jax.devices(), n).mesh.devices for n in (1, None))
  assert np.array_equal(given, found)
  with pytest.raises(UserError, match=facts('slices', 'mesh')):
    placement.make(None, 'data', jax.devices(), 2)
