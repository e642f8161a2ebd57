"""Run states: which are kept, what a half-written one does, and where errors point."""

import pathlib
import shutil
import time
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from etils import epath

from prompt_jax.checkpoints import on_disk, run_state
from prompt_jax.checkpoints.run_state import RunStates, from_arrays, to_arrays
from prompt_jax.errors import UserError
from tests.shared import facts


class Moments(NamedTuple):
  count: object
  v: object


def arrays(step):
  return {'state/x/y': np.arange(4, dtype=np.float32) * step, 'state/step': np.array(step)}


def test_what_is_saved_is_read_by_the_next_process(tmp_path):
  with RunStates(tmp_path / 'a' / 'state') as states:
    assert states.steps() == []
    states.save(3, arrays(3), {'position': {'epoch': 1, 'row': 7}, 'name': 'x'}, None)
  with RunStates(tmp_path / 'a' / 'state') as states:
    assert states.steps() == [3]
    got, info = states.restore(3)
  assert info == {'position': {'epoch': 1, 'row': 7}, 'name': 'x'}
  assert sorted(got) == sorted(arrays(3))
  for name, want in arrays(3).items():
    np.testing.assert_array_equal(got[name], want)
    assert got[name].dtype == want.dtype


def test_what_changes_after_a_save_is_not_saved(tmp_path, monkeypatch):
  """The record is written in the background."""
  info = {'window': [1.5]}
  slow = epath.Path('/').__class__.write_text

  def late(self, *args, **kwargs):
    time.sleep(0.05)
    return slow(self, *args, **kwargs)

  monkeypatch.setattr(epath.Path('/').__class__, 'write_text', late)
  with RunStates(tmp_path) as states:
    states.save(3, arrays(3), info, None)
    info['window'].clear()
  with RunStates(tmp_path) as states:
    assert states.restore(3)[1] == {'window': [1.5]}


@pytest.mark.parametrize(('mode', 'best'), [('max', 2), ('min', 3)])
def test_the_latest_few_and_the_best_are_kept(tmp_path, mode, best):
  metrics = {1: 0.5, 2: 0.9, 3: 0.1, 4: float('nan'), 5: 0.4, 6: None, 7: 0.3}
  with RunStates(tmp_path, keep=2, best=mode) as states:
    for step, metric in metrics.items():
      states.save(step, arrays(step), {}, metric)
  with RunStates(tmp_path, keep=2, best=mode) as states:
    assert states.steps() == [best, 6, 7]


def test_a_half_written_state_is_never_picked_up(tmp_path):
  with RunStates(tmp_path) as states:
    states.save(3, arrays(3), {}, None)
  # What a kill leaves behind: the folder in which the next state was being made.
  torn = tmp_path / '5.orbax-checkpoint-tmp-17'
  torn.mkdir()
  (torn / 'state').write_text('')
  with RunStates(tmp_path) as states:
    assert states.steps() == [3]
    states.save(5, arrays(5), {}, None)
  with RunStates(tmp_path) as states:
    assert states.steps() == [5]
    np.testing.assert_array_equal(states.restore(5)[0]['state/step'], 5)


def test_a_folder_that_is_a_file_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=facts(f'{tmp_path}/file/state', 'Not a directory')):
    RunStates(tmp_path / 'file' / 'state')


def test_a_folder_that_vanishes_is_named(tmp_path):
  states = RunStates(tmp_path / 'state')
  states.folder.rmdir()
  states.folder.write_text('')
  with pytest.raises(UserError, match=facts(f'{tmp_path}/state')):
    states.save(1, arrays(1), {}, None)


def test_a_damaged_byte_of_any_file_is_found(tmp_path):
  with RunStates(tmp_path) as states:
    states.save(3, arrays(3), {'position': {'number': 12}}, 0.5)
  files = sorted(p for p in (tmp_path / '3').rglob('*') if p.is_file())
  assert len(files) > 5
  rng = np.random.default_rng(0)
  for path in files:
    good = path.read_bytes()
    places = rng.permutation(len(good))[:8].tolist()
    flipped = [good[:i] + bytes([good[i] ^ 0xFF]) + good[i + 1 :] for i in places]
    for bad in (*flipped, good[: len(good) // 2], b''):
      path.write_bytes(bad)
      if bad != good:
        with pytest.raises(UserError, match=facts(f'{tmp_path}/3', 'damaged', 'remove')):
          RunStates(tmp_path)
    path.write_bytes(good)
  with RunStates(tmp_path) as states:
    np.testing.assert_array_equal(states.restore(3)[0]['state/step'], 3)


def test_a_flipped_bit_of_a_record_is_found_without_the_checksums_of_files(tmp_path):
  with RunStates(tmp_path) as states:
    states.save(3, arrays(3), {'position': {'number': 12}}, None)
  (tmp_path / '3' / on_disk.NAME).unlink()
  (record,) = [p for p in (tmp_path / '3').rglob('*') if p.is_file() and b'12' in p.read_bytes()
               and p.parent.name == 'info']  # fmt: skip
  record.write_bytes(record.read_bytes().replace(b'12', b'13'))
  with (
    RunStates(tmp_path) as states,
    pytest.raises(UserError, match=facts(f'{tmp_path}/3', 'damaged')),
  ):
    states.restore(3)


def test_an_older_state_that_is_damaged_is_no_obstacle(tmp_path):
  """As when a kill came while it was being removed."""
  with RunStates(tmp_path, keep=2) as states:
    states.save(3, arrays(3), {}, None)
    states.save(5, arrays(5), {}, None)
  shutil.rmtree(tmp_path / '3' / 'state')
  with RunStates(tmp_path, keep=2) as states:
    assert states.steps()[-1] == 5
    np.testing.assert_array_equal(states.restore(5)[0]['state/step'], 5)


def test_a_state_of_before_there_were_checksums_is_read(tmp_path, monkeypatch):
  info = {'position': {'number': 12}}
  monkeypatch.setattr(run_state, '_checked', lambda arrays, info: info)
  with RunStates(tmp_path) as states:
    states.save(3, arrays(3), info, None)
  (tmp_path / '3' / on_disk.NAME).unlink()
  with RunStates(tmp_path) as states:
    assert states.restore(3)[1] == info


def test_the_first_error_is_told(tmp_path, monkeypatch):
  """A save that fails while another error is on its way must not hide it."""

  def fail(_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(ocp.CheckpointManager, 'close', fail)
  states = RunStates(tmp_path)
  with pytest.raises(UserError, match=facts('loss', 'nan')), states:
    raise UserError('loss is nan')


def test_an_error_in_the_background_is_told(tmp_path, monkeypatch, caplog):
  """A disk that fills up after the check; the state before stays."""
  with RunStates(tmp_path) as states:
    states.save(1, arrays(1), {}, None)
  states = RunStates(tmp_path)

  def full(*_, **__):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_text', full)
  monkeypatch.setattr(epath.Path('/').__class__, 'write_text', full)
  states.save(2, arrays(2), {}, None)
  with pytest.raises(UserError, match=facts('No space left on device', '1')):
    states.wait()
  monkeypatch.undo()
  assert caplog.text == ''
  with RunStates(tmp_path) as states:
    assert states.steps() == [1]


def test_any_tree_to_arrays_and_back():
  tree = {'opt': (Moments(jnp.int32(3), {'w': jnp.ones((2, 3))}), ()), 'x': [jnp.zeros(2)]}
  flat = to_arrays(tree)
  assert sorted(flat) == ['opt/0/count', 'opt/0/v/w', 'x/0']
  back = from_arrays(tree, flat, 'folder')
  assert isinstance(back['opt'][0], Moments)
  np.testing.assert_array_equal(back['opt'][0].v['w'], np.ones((2, 3)))


def test_arrays_are_copies():
  x = jnp.zeros(4)
  flat = to_arrays({'x': x})
  assert not np.shares_memory(flat['x'], np.asarray(x))


def test_another_set_up_lists_both_sides():
  flat = to_arrays({'prompt': jnp.ones((100, 8)), 'v': jnp.ones(3)})
  with pytest.raises(UserError, match=facts('prompt', 'float32[100, 8]', 'float32[20, 8]')) as e:
    from_arrays({'prompt': jnp.ones((20, 8)), 'm': jnp.ones(3)}, flat, 'out')
  assert 'm: saved nothing, this run float32[3]' in str(e.value)
  assert 'v: saved float32[3], this run nothing' in str(e.value)
