"""Data sets in the form of the Hugging Face hub, read by its own library from a folder."""

import sys

import pytest

from prompt_jax.data import hub
from prompt_jax.data.example import Lengths
from prompt_jax.data.local_file import local_inputs, local_task
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError

datasets = pytest.importorskip('datasets')


@pytest.fixture(scope='module')
def repo(tmp_path_factory):
  """A repository of three splits; the labels of the last are hidden, as those of GLUE are."""
  place = tmp_path_factory.mktemp('hub')
  datasets.config.HF_DATASETS_CACHE = place / 'cache'
  features = datasets.Features(
    {'text': datasets.Value('string'), 'label': datasets.ClassLabel(names=['sad', 'glad'])}
  )
  for split, count in {'train': 6, 'validation': 4, 'test': 2}.items():
    labels = [-1 if split == 'test' else i % 2 for i in range(count)]
    rows = {'text': [f'{split} {i}' for i in range(count)], 'label': labels}
    table = datasets.Dataset.from_dict(rows, features=features)
    table.to_parquet(place / 'moods' / 'data' / f'{split}-00000-of-00001.parquet')
  return f'hf:{place / "moods"}'


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
    ('hf:/no/such', ['no folder /no/such']),
    ('{repo}:other', ["'other'", 'default']),
    ('{repo}::dev', ['train, validation, test', '::test']),
  ],
)
def test_mistakes_name_what_there_is(repo, name, words):
  with pytest.raises(UserError) as error:
    local_task(name.format(repo=repo))
  assert '\n' not in str(error.value)
  for word in words:
    assert word in str(error.value)


def test_a_hidden_label_is_named_where_it_is_asked_for(repo):
  with pytest.raises(UserError, match=r"::test:1: 'label' is empty"):
    local_task(repo, test=f'{repo}::test')


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
  hub._read.cache_clear()
  monkeypatch.setitem(sys.modules, 'datasets', None)
  with pytest.raises(UserError, match=r'prompt_jax\[datasets\]'):
    local_task('hf:some/where')
