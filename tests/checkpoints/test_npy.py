"""Prompts in NumPy's format, and where google-research/prompt-tuning keeps them."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.errors import UserError
from prompt_jax.prompt_formats.foreign import Rows
from prompt_jax.prompt_formats.npy import (
  find_numpy_checkpoint,
  is_npy,
  numpy_checkpoint_path,
  read_npy,
  write_npy,
)
from tests.shared import facts, shared

ROWS = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def test_there_and_back_bit_for_bit(tmp_path):
  path = write_npy(tmp_path / 'new' / 'encoder.prompt.prompt.prompt', Rows(ROWS))
  assert is_npy(path)
  found = read_npy(path)
  assert found.prompt.values.tobytes() == ROWS.tobytes()
  assert found.step is None
  np.testing.assert_array_equal(np.load(path), ROWS)


def test_a_run_of_the_reference_gives_its_last_step(tmp_path):
  for step, rows in ((1_100_100, ROWS), (1_150_000, 2 * ROWS), (9, 3 * ROWS)):
    write_npy(numpy_checkpoint_path(tmp_path, step), Rows(rows))
  (tmp_path / 'numpy_checkpoints' / 'checkpoint_2000000.tmp-1').mkdir()
  for folder in (tmp_path, tmp_path / 'numpy_checkpoints'):
    found = read_npy(find_numpy_checkpoint(folder))
    assert found.step == 1_150_000
    np.testing.assert_array_equal(found.prompt.values, 2 * ROWS)
  one = tmp_path / 'numpy_checkpoints' / 'checkpoint_9'
  assert read_npy(find_numpy_checkpoint(one)).step == 9


def test_other_folders_are_none_or_told(tmp_path):
  assert find_numpy_checkpoint(tmp_path) is None
  (tmp_path / 'numpy_checkpoints').mkdir()
  with pytest.raises(UserError, match='checkpoint_STEP'):
    find_numpy_checkpoint(tmp_path)
  layer = tmp_path / 'numpy_checkpoints' / 'checkpoint_3' / 'encoder.layers_0.prompt.prompt.prompt'
  write_npy(layer, Rows(ROWS))
  with pytest.raises(UserError, match=facts('encoder.layers_0.', 'every layer')):
    find_numpy_checkpoint(tmp_path)


def test_arrays_beside_the_rows_are_not_dropped(tmp_path):
  place = numpy_checkpoint_path(tmp_path, 3)
  write_npy(place, Rows(ROWS))
  write_npy(place.with_name('decoder.prompt.prompt.prompt'), Rows(ROWS))
  for folder in (tmp_path, place.parent):
    with pytest.raises(UserError, match=facts('decoder.prompt.prompt.prompt', place.name)):
      find_numpy_checkpoint(folder)
  read_npy(place)


@pytest.mark.parametrize('cut', [0, 4, 30, -1])
def test_a_damaged_file_is_told(tmp_path, cut):
  path = tmp_path / 'p.npy'
  np.save(path, ROWS)
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(UserError, match=facts("p.npy'", 'damaged')):
    read_npy(path)


def test_what_is_no_prompt_is_told(tmp_path):
  path = tmp_path / 'p.npy'
  bad = ROWS.copy()
  bad[2, 1] = np.nan
  for value, match in (
    (ROWS[0], facts('[6]', '[any, any]')),
    (ROWS[:0], facts('[0, 6]')),
    (np.ones((2, 2), np.int32), 'int32'),
    (np.array([['a']]), '<U1'),
    (np.array([[None]]), facts('damaged', '.npy')),
    (bad, facts('finite', '1', '[2, 1]')),
  ):
    np.save(path, value)
    with pytest.raises(UserError, match=match):
      read_npy(path)
  with open(path, 'wb') as file:
    np.savez(file, a=ROWS, b=ROWS)
  with pytest.raises(UserError, match=r'\(a, b\)'):
    read_npy(path)


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 223), byte=st.integers(0, 255))
def test_a_flipped_byte_is_a_user_error_or_another_prompt(tmp_path_factory, at, byte):
  path = tmp_path_factory.mktemp('flip') / 'p.npy'
  np.save(path, ROWS)
  data = bytearray(path.read_bytes())
  data[at] = byte
  path.write_bytes(data)
  with contextlib.suppress(UserError):
    assert np.isfinite(read_npy(path).prompt.values).all()


@pytest.mark.parametrize(('name', 'norm'), [('sst2', 1385), ('mrpc', 868), ('rte', 903)])
def test_the_released_prompts(name, norm):
  found = read_npy(shared('golden', 'released_prompts', f'{name}.npy'))
  assert found.prompt.values.shape == (100, 768)
  norms = np.linalg.norm(found.prompt.values, axis=1)
  assert norms.mean() == pytest.approx(norm, abs=0.5)
