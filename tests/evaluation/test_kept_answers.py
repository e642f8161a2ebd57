"""Answers that are kept on disk."""

import dataclasses
import os

import numpy as np

from prompt_jax.data.example import Example
from prompt_jax.evaluation import predictions
from prompt_jax.evaluation.predictions import Prediction


def example(i, **changes):
  ids = np.array([i + 3, 1], np.int32)
  usual = {'inputs_text': f'text {i}', 'targets_text': 'yes', 'label': 1, 'fields': {}, 'task': 't'}
  return Example(ids, ids, **{**usual, **changes})


EXAMPLES = [example(0), example(1, fields={'answers': ['yes', 'yea'], 'group': 7})]
ANSWERS = [
  Prediction('text 0', 'yes', 'no', False, {'no': -0.1, 'yes': -2.5}, 0.9, 't'),
  Prediction('text 1', 'yes', 'yes', True, {'yes': -0.5}, None, 't', ['yes', 'yea'], 7),
]


def test_what_was_kept_is_read_as_it_was(tmp_path):
  predictions.keep_answers(tmp_path, 'abc', {'accuracy': 50.0}, ANSWERS)
  assert predictions.read_answers(tmp_path, 'abc', EXAMPLES) == ({'accuracy': 50.0}, ANSWERS)
  assert predictions.read_answers(tmp_path, 'other', EXAMPLES) is None
  assert predictions.read_answers(tmp_path, 'abc', EXAMPLES[:1]) is None


def test_a_damaged_file_is_no_file(tmp_path):
  predictions.keep_answers(tmp_path, 'abc', {'accuracy': 50.0}, ANSWERS)
  (path,) = tmp_path.iterdir()
  for data in (path.read_bytes()[:40], b'', b'text', path.read_bytes()[:-9] + b'123456789'):
    path.write_bytes(data)
    assert predictions.read_answers(tmp_path, 'abc', EXAMPLES) is None


def test_the_oldest_files_go(tmp_path, monkeypatch):
  monkeypatch.setattr(predictions, 'MOST_FILES', 2)
  for i, name in enumerate('abc'):
    predictions.keep_answers(tmp_path, name, {}, ANSWERS)
    os.utime(tmp_path / f'{name}{predictions.SUFFIX}', (i, i))
  predictions.keep_answers(tmp_path, 'd', {}, ANSWERS)
  assert sorted(p.name[0] for p in tmp_path.iterdir()) == ['c', 'd']


def test_a_folder_that_cannot_be_written_is_left(tmp_path):
  (tmp_path / 'file').write_text('')
  predictions.keep_answers(tmp_path / 'file', 'abc', {}, ANSWERS)
  assert predictions.read_answers(tmp_path / 'file', 'abc', EXAMPLES) is None


def test_the_digest_depends_on_all_that_is_asked_and_compared():
  changed = [
    {'inputs_text': 'other'}, {'targets_text': 'no'}, {'label': 0}, {'task': 'u'},
    {'fields': {'answers': ['no']}}, {'fields': {'group': 1}},
  ]  # fmt: skip
  found = [predictions.examples_digest([example(0, **change)]) for change in ({}, *changed)]
  cut = dataclasses.replace(example(0), inputs=np.array([1], np.int32))
  assert len({*found, predictions.examples_digest([cut])}) == len(found) + 1
  assert predictions.examples_digest([example(0)]) == found[0]
  # A column that nothing reads does not matter.
  assert predictions.examples_digest([example(0, fields={'id': 5})]) == found[0]
