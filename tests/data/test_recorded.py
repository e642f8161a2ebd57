"""Recorded examples: unchanged by a replay, no TensorFlow, never with another vocabulary."""

import dataclasses
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from prompt_jax.data.example import Lengths, TextExample, text_task
from prompt_jax.data.recorded import record, replay
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from tests.shared import facts

BYTES = ByteVocabulary()
LENGTHS = Lengths(16, 8)


def some_task():
  rows = [
    TextExample(f'text {i}', 'yes' if i % 3 else 'no', int(i % 3 > 0), {'id': i, 'é': ['x']})
    for i in range(10)
  ]
  splits = {'train': lambda: rows, 'test': lambda: rows[:1], 'empty': lambda: []}
  task = text_task('some', splits, ('no', 'yes'), ('accuracy', 'f1'), about='made up')
  return dataclasses.replace(task, words={'0': 'no', '1': 'yes'})


@pytest.fixture
def file(tmp_path):
  record(tmp_path / 'new' / 'some.npz', some_task(), ['train', 'test'], BYTES, LENGTHS)
  return tmp_path / 'new' / 'some.npz'


def test_replay_is_what_was_recorded(file):
  task, again = some_task(), replay(file)
  assert (again.name, again.labels, again.metrics) == (task.name, task.labels, task.metrics)
  assert (again.about, again.words) == (task.about, task.words)
  for split in ('train', 'test'):
    before = task.load(split, BYTES, LENGTHS)
    after = again.load(split, BYTES, Lengths(16, 9))
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
      np.testing.assert_array_equal(a.inputs, b.inputs)
      np.testing.assert_array_equal(a.targets, b.targets)
      assert b.inputs.dtype == b.targets.dtype == np.int32
      for name in ('inputs_text', 'targets_text', 'label', 'fields', 'task'):
        assert getattr(a, name) == getattr(b, name)
  assert [p.name for p in file.parent.iterdir()] == ['some.npz']


def test_another_vocabulary_or_shorter_lengths_are_refused(file, vocabulary):
  with pytest.raises(UserError, match='vocabulary'):
    replay(file).load('train', vocabulary, LENGTHS)
  with pytest.raises(UserError, match=facts('sentinels', '125', '100')):
    replay(file).load('train', ByteVocabulary(100), LENGTHS)
  with pytest.raises(UserError, match=facts('16', '15')):
    replay(file).load('train', BYTES, Lengths(15, 8))
  with pytest.raises(UserError, match='split'):
    replay(file).load('validation', BYTES, LENGTHS)


def test_bad_files(tmp_path, file):
  with pytest.raises(UserError, match='file'):
    replay(tmp_path / 'none.npz')
  (tmp_path / 'a.npz').write_text('text')
  with pytest.raises(UserError, match='recorded'):
    replay(tmp_path / 'a.npz')
  (tmp_path / 'a.npz').write_bytes(file.read_bytes()[:-200])
  with pytest.raises(UserError, match='recorded'):
    replay(tmp_path / 'a.npz')
  np.savez(tmp_path / 'a.npz', x=1)
  with pytest.raises(UserError, match='recorded'):
    replay(tmp_path / 'a.npz')


def test_what_cannot_be_recorded(tmp_path):
  with pytest.raises(UserError, match=facts("'empty'", 'examples')):
    record(tmp_path / 'a.npz', some_task(), ['empty'], BYTES, LENGTHS)
  several = dataclasses.replace(some_task(), parts=(some_task(),))
  with pytest.raises(UserError, match=facts("'some'", 'tasks')):
    record(tmp_path / 'a.npz', several, ['train'], BYTES, LENGTHS)
  for own in ({'score': lambda examples, texts: {'accuracy': 0.0}}, {'postprocess': str.lower}):
    task = dataclasses.replace(some_task(), **own)
    with pytest.raises(UserError, match=facts("'some'", next(iter(own)))):
      record(tmp_path / 'a.npz', task, ['train'], BYTES, LENGTHS)
  assert not (tmp_path / 'a.npz').exists()
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match='Cannot write'):
    record(tmp_path / 'file' / 'a.npz', some_task(), ['train'], BYTES, LENGTHS)


def test_batches_of_a_recording_need_neither_tensorflow_nor_seqio(file):
  code = """
    import sys

    class Blocker:
      def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('tensorflow', 'tensorflow_text', 'tensorflow_datasets', 'seqio'):
          raise ImportError(f'{name} is not installed here')

    sys.meta_path.insert(0, Blocker())
    from prompt_jax.data.batches import BatchStream
    from prompt_jax.data.example import Lengths
    from prompt_jax.data.recorded import replay
    from prompt_jax.data.vocabulary import ByteVocabulary

    examples = replay(sys.argv[1]).load('train', ByteVocabulary(), Lengths(16, 8))
    batch = next(iter(BatchStream(examples, 4)))
    print(batch.encoder_input_tokens.shape, 'tensorflow' in sys.modules)
  """
  run = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code), str(file)],
    capture_output=True,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout.strip() == '(4, 8) False'
