"""Event files, read back by TensorBoard's own reader, and runs without the library."""

import sys

import pytest

from prompt_jax.errors import UserError
from prompt_jax.training.records import write_events

RECORDS = [
  {'step': 7, 'kind': 'eval', 'accuracy': 91.25, 'loss': -0.5},
  {'step': 300, 'kind': 'train', 'loss': 1e30},
]


@pytest.fixture
def tensorboard():
  return pytest.importorskip('tensorboard', reason='TensorBoard is an optional extra')


def test_tensorboard_reads_the_records(tensorboard, tmp_path):
  from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

  (tmp_path / 'tb').mkdir()
  (tmp_path / 'tb' / 'events.out.tfevents.1.old').write_text('of an earlier run')
  assert write_events(tmp_path / 'tb', RECORDS)
  assert len(list((tmp_path / 'tb').iterdir())) == 1
  events = EventAccumulator(str(tmp_path / 'tb'))
  events.Reload()
  read = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.scalars.Keys()}
  assert read == {
    'eval/accuracy': [(7, 91.25)],
    'eval/loss': [(7, -0.5)],
    'train/loss': [(300, pytest.approx(1e30))],
  }


def test_a_folder_that_cannot_be_made_is_named(tensorboard, tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'file/tb'):
    write_events(tmp_path / 'file' / 'tb', RECORDS)


def test_nothing_is_written_without_the_library(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'tensorboard', None)
  for name in [m for m in sys.modules if m.startswith('tensorboard.')]:
    monkeypatch.setitem(sys.modules, name, None)
  assert not write_events(tmp_path / 'tb', RECORDS)
  assert list(tmp_path.iterdir()) == []
