"""Data sets in the form of the Hugging Face hub, read by its own library from a folder."""

import sys

import pytest

from prompt_jax.data import hub
from prompt_jax.data.example import Lengths
from prompt_jax.data.local_file import local_inputs, local_task
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from tests.shared import facts

datasets = pytest.importorskip('datasets')


@pytest.fixture(scope='module')
def repo(tmp_path_factory):
  """A repository of three splits; the labels of the last are hidden, as those of GLUE are."""
  place = tmp_path_factory.mktemp('hub')
  datasets.config.HF_DATASETS_CACHE = place / 'cache'
  return _write(
    place,
    'moods',
    datasets.ClassLabel(names=['sad', 'glad']),
    train=[0, 1, 0, 1, 0, 1],
    validation=[0, 1, 0, 1],
    test=[-1, -1],
  )


def _write(place, name, label, **splits):
  """A repository of one column of text and one of labels; {split: labels}."""
  features = datasets.Features({'text': datasets.Value('string'), 'label': label})
  for split, labels in splits.items():
    rows = {'text': [f'{split} {i}' for i in range(len(labels))], 'label': labels}
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(place / name / 'data' / f'{split}-00000-of-00001.parquet')
  return f'hf:{place / name}'


def _read(task, split):
  examples = task.load(split, ByteVocabulary(), Lengths(64, 32))
  return [(e.inputs_text, e.targets_text) for e in examples]


def test_a_repository_brings_its_splits_and_the_names_of_its_labels(repo):
  task = local_task(repo)
  assert (task.name, task.labels) == ('moods', ('glad', 'sad'))
  assert list(task.splits) == ['train', 'validation'], 'hidden labels can measure nothing'
  assert _read(task, 'train')[:2] == [('train 0', 'sad'), ('train 1', 'glad')]
  assert len(_read(task, 'train')) == 6
  assert _read(task, 'validation')[3] == ('validation 3', 'glad')


def test_a_split_by_its_name(repo):
  task = local_task(f'{repo}::validation', validation=f'{repo}::train')
  assert (len(_read(task, 'train')), len(_read(task, 'validation'))) == (4, 6)
  alone = local_task(validation=repo)
  assert len(_read(alone, 'validation')) == 4, 'the split that it is wanted for'
  assert [e.inputs for e in local_inputs(f'{repo}::test')] == ['test 0', 'test 1']


@pytest.mark.parametrize(
  ('name', 'words'),
  [
    ('hf:', ['hf:REPO:CONFIG:SPLIT']),
    ('hf:a:b:c:d', ['hf:REPO:CONFIG:SPLIT']),
    ('hf:/no/such', ['/no/such']),
    ('{repo}:other', ["'other'", 'default']),
    ('{repo}::dev', ['train', 'validation', 'test', '::train']),
  ],
)
def test_mistakes_name_what_there_is(repo, name, words):
  with pytest.raises(UserError) as error:
    local_task(name.format(repo=repo))
  assert '\n' not in str(error.value)
  for word in words:
    assert word in str(error.value)


def test_what_is_trained_on_measures_nothing(tmp_path):
  repo = _write(tmp_path, 'one', datasets.Value('string'), test=['a', 'b'] * 20)
  task = local_task(repo)
  parts = [{e.inputs_text for e in task.load(s, ByteVocabulary(), Lengths(64, 32))}
           for s in ('train', 'validation', 'test')]  # fmt: skip
  assert [len(part) for part in parts] == [32, 4, 4]
  assert len(set.union(*parts)) == 40


def test_rows_without_a_label_are_left_out_and_counted(tmp_path):
  label = datasets.ClassLabel(names=['no', 'yes'])
  repo = _write(tmp_path, 'some', label, train=[0, 1, -1, 0, 1], validation=[0, 1])
  with pytest.warns(UserWarning, match=facts('::train', '1', '5', 'text', 'label')):
    task = local_task(repo, test=f'{repo}::validation')
  assert len(_read(task, 'train')) == 4


def test_hidden_labels_without_names(tmp_path):
  repo = _write(
    tmp_path, 'plain', datasets.Value('int64'), train=[0, 1] * 3, validation=[0, 1], test=[-1, -1]
  )
  assert list(local_task(repo).splits) == ['train', 'validation']


def test_splits_of_other_names_are_said(tmp_path):
  card = ['---', 'configs:', '- config_name: default', '  data_files:']
  for split in ('train', 'heldout'):
    card += [f'  - split: {split}', f'    path: data/{split}-*']
  repo = _write(tmp_path, 'odd', datasets.Value('string'), train=['a', 'b'] * 20, heldout=['a'])
  (tmp_path / 'odd' / 'README.md').write_text('\n'.join([*card, '---', '']))
  with pytest.warns(UserWarning, match=facts('heldout', 'validation=', '::heldout')):
    task = local_task(repo)
  assert sorted(map(len, (_read(task, s) for s in task.splits))) == [4, 4, 32]


def test_a_hidden_label_is_named_where_it_is_asked_for(repo):
  with pytest.raises(UserError, match=facts('::test', 'text', 'label')):
    local_task(repo, test=f'{repo}::test')


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
  hub._read.cache_clear()
  monkeypatch.setitem(sys.modules, 'datasets', None)
  with pytest.raises(UserError, match=r'\[datasets\]'):
    local_task('hf:some/where')
