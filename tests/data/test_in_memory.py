"""Rows in memory as tasks: the same task whatever holds them, and every fault with its row."""

import numpy as np
import pytest

from prompt_jax.data.example import Lengths
from prompt_jax.data.local_file import local_task
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError

TEXTS = [f'text number {i}' for i in range(30)]
LABELS = ['good' if i % 3 else 'bad' for i in range(30)]


def read(task, split):
  examples = task.load(split, ByteVocabulary(), Lengths(64, 32))
  return [(e.inputs_text, e.targets_text, e.label) for e in examples]


def frame():
  pandas = pytest.importorskip('pandas')
  return pandas.DataFrame({'text': TEXTS, 'label': LABELS})


def dataset():
  datasets = pytest.importorskip('datasets')
  features = datasets.Features(
    {'text': datasets.Value('string'), 'label': datasets.ClassLabel(names=['bad', 'good'])}
  )
  rows = {'text': TEXTS, 'label': [int(x == 'good') for x in LABELS]}
  return datasets.Dataset.from_dict(rows, features=features)


FORMS = {
  'pairs': lambda: list(zip(TEXTS, LABELS, strict=True)),
  'mappings': lambda: [{'text': t, 'label': x} for t, x in zip(TEXTS, LABELS, strict=True)],
  'columns': lambda: {'text': TEXTS, 'label': LABELS},
  'generator': lambda: (pair for pair in zip(TEXTS, LABELS, strict=True)),
  'pandas': frame,
  'datasets': dataset,
}


@pytest.mark.parametrize('form', FORMS)
def test_every_form_is_the_task_of_the_same_rows_in_a_file(form, tmp_path):
  file = tmp_path / 'rows.tsv'
  lines = '\n'.join(f'{t}\t{x}' for t, x in zip(TEXTS, LABELS, strict=True))
  file.write_text(f'text\tlabel\n{lines}\n')
  expected, task = local_task(str(file)), local_task(FORMS[form]())
  assert (task.name, task.labels, list(task.splits)) == (
    'rows', ('bad', 'good'), ['train', 'validation', 'test'],
  )  # fmt: skip
  for split in expected.splits:
    assert read(task, split) == read(expected, split)


def test_splits_of_a_dataset_dict_are_taken():
  datasets = pytest.importorskip('datasets')
  whole = dataset()
  parts = {'train': whole.select(range(20)), 'validation': whole.select(range(20, 30))}
  task = local_task(datasets.DatasetDict(parts))
  assert [len(read(task, split)) for split in task.splits] == [20, 10]


def test_numbers_of_numpy_are_labels_and_missing_values_name_their_row():
  pandas = pytest.importorskip('pandas')
  rows = pandas.DataFrame({'text': TEXTS, 'label': np.arange(30) % 2})
  assert local_task(rows).labels == ('0', '1')
  rows = pandas.DataFrame({'text': ['a', None, 'c'], 'label': ['x', 'y', 'x']})
  with pytest.raises(UserError, match=r"train rows:2: 'text'"):
    local_task(rows)


@pytest.mark.parametrize(
  ('data', 'said'),
  [
    ([], 'train rows'),
    ({'text': ['a'], 'label': []}, 'text 1, label 0'),
    ([('a', 'b', 'c')], 'train rows:1'),
    (['only a text'], 'train rows:1'),
    (3.5, 'float'),
  ],
)
def test_what_is_no_data_is_refused(data, said):
  with pytest.raises(UserError, match=said):
    local_task(data)
