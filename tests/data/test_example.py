"""Text to examples: truncation keeps the end, and bad targets and labels are refused."""

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from prompt_jax.data import example as lib
from prompt_jax.data.example import Lengths, TextExample
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from tests.shared import facts

BYTES = ByteVocabulary()


@hypothesis.given(text=strategies.text(max_size=30), length=strategies.integers(2, 20))
def test_truncation_keeps_the_end(text, length):
  ids = lib.encode(text, BYTES, length)
  whole = BYTES.encode(text)
  assert ids.dtype == np.int32
  assert len(ids) <= length
  assert ids[-1] == 1
  assert ids[:-1].tolist() == whole[: length - 1]


def test_tokenize_keeps_what_reports_need():
  text = TextExample('abc', 'no', label=1, fields={'idx': 7}, source='x.tsv:3')
  (example,) = lib.tokenize([text], BYTES, Lengths(3, 8), 'mine')
  assert example.inputs.tolist() == [100, 101, 1]
  assert example.targets.tolist() == [113, 114, 1]
  assert (example.inputs_text, example.targets_text) == ('abc', 'no')
  assert (example.label, dict(example.fields), example.task) == (1, {'idx': 7}, 'mine')


def test_an_empty_target_names_its_row():
  with pytest.raises(UserError, match=facts('x.tsv:3', 'target', 'tokens')):
    lib.tokenize([TextExample('abc', '', source='x.tsv:3')], BYTES, Lengths(3, 8), 'mine')
  with pytest.raises(UserError, match=facts('mine', '1')):
    lib.tokenize([TextExample('abc', '')], BYTES, Lengths(3, 8), 'mine')


def test_lengths_leave_room_for_a_token():
  with pytest.raises(UserError, match=facts('targets', '1')):
    lib.tokenize([], BYTES, Lengths(3, 1), 'mine')


@pytest.mark.parametrize(
  ('labels', 'message'),
  [
    (('yes', ''), 'tokens'),
    (('yes', 'a long answer'), 'length'),
    (('yes', 'yes'), 'same tokens'),
  ],
)
def test_labels_that_cannot_be_told_apart(labels, message):
  with pytest.raises(UserError, match=message):
    lib.encode_labels(labels, BYTES, 8)


def make_task(labels=('yes', 'no')):
  rows = [TextExample('abc', 'yes', 0), TextExample('d', 'no', 1)]
  return lib.text_task('mine', {'train': lambda: rows}, labels, ('accuracy',))


def test_a_task_loads_its_splits():
  examples = make_task().load('train', BYTES, Lengths(8, 8))
  assert [e.targets_text for e in examples] == ['yes', 'no']
  assert [e.label for e in examples] == [0, 1]
  with pytest.raises(UserError, match=facts('split', "'mine'", "'train'")):
    make_task().load('trian', BYTES, Lengths(8, 8))


def test_a_task_refuses_labels_the_vocabulary_cannot_write():
  with pytest.raises(UserError, match='tokens'):
    make_task(('yes', '')).load('train', BYTES, Lengths(8, 8))


def test_label_tokens_are_padded_rows():
  rows = make_task().label_tokens(BYTES, 8)
  assert rows.dtype == np.int32
  assert rows.tolist() == [[124, 104, 118, 1], [113, 114, 1, 0]]
  with pytest.raises(UserError, match='labels'):
    make_task(None).label_tokens(BYTES, 8)
