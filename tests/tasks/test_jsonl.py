"""Data sets from JSON Lines files: every one of the shared folder, and faults by file and line."""

import collections
import json

import pytest

from prompt_jax.data.example import Lengths
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from prompt_jax.tasks import find, jsonl
from tests.shared import shared

BYTES = ByteVocabulary()
LENGTHS = Lengths(4000, 1000)
LANGUAGES = {'sib200': 'eng_Latn', 'nusax_senti': 'javanese', 'xcopa': 'it', 'xquad': 'de'}


def write(folder, name, rows):
  folder.mkdir(exist_ok=True)
  (folder / name).write_text('\n'.join(json.dumps(row) for row in rows))


@pytest.mark.parametrize('name', jsonl.FORMATS)
def test_data_sets(name):
  folder = shared('data')
  about = json.loads((folder / 'datasets.json').read_text())[name]['splits']
  language = LANGUAGES.get(name)
  task = jsonl.jsonl_task(f'{name}.{language}' if language else name, str(folder))
  loaded = {split: task.load(split, BYTES, LENGTHS) for split in task.splits}
  found = {
    s: json.loads(json.dumps(about[s])) for s in ('train', 'validation', 'test') if s in about
  }
  for split, facts in found.items():
    facts = facts.get('languages', {}).get(language, facts) if language else facts
    if 'examples' in facts and (split != 'train' or 'validation' in found):
      assert len(loaded[split]) == facts['examples']
  if task.labels:
    for examples in loaded.values():
      assert {e.targets_text for e in examples} <= set(task.labels)
      assert all(task.labels[e.label] == e.targets_text for e in examples)


@pytest.mark.parametrize(
  ('name', 'inputs', 'targets'),
  [
    ('sst2', 'sst2 sentence: a stirring , funny and finally transporting', 'positive'),
    ('copa', 'copa choice1: The sun was rising. choice2: The grass was cut. premise: My body cast '
     'a shadow over the grass. question: cause', 'choice1'),
    ('rte', 'rte hypothesis: Weapons of Mass Destruction Found in Iraq. premise: No Weapons',
     'not_entailment'),
    ('boolq', 'boolq passage: Bridesmaid -- The principal', 'True'),
    ('wic', 'wic sentence1: You make me feel naked. sentence2: She felt small and insignificant. '
     'word: feel', 'True'),
  ],
)  # fmt: skip
def test_first_rows(name, inputs, targets):
  folder = str(shared('data'))
  first = jsonl.jsonl_task(name, folder).load('train', BYTES, LENGTHS)[0]
  assert first.inputs_text.startswith(inputs)
  assert first.targets_text == targets
  bare = jsonl.jsonl_task(name, folder, taskless=True).load('train', BYTES, LENGTHS)[0]
  assert first.inputs_text == f'{name} {bare.inputs_text}'


def test_banking77_has_its_labels_and_a_drawn_validation_split():
  task = jsonl.jsonl_task('banking77', str(shared('data')))
  assert len(task.labels) == 77
  assert 'card arrival' in task.labels
  sizes = {split: len(task.load(split, BYTES, LENGTHS)) for split in task.splits}
  assert sizes['train'] + sizes['validation'] == 10003
  assert 900 < sizes['validation'] < 1100
  assert sizes['test'] == 3080


def test_without_a_validation_file_some_training_rows_are_held_out(tmp_path):
  rows = [{'question': f'q{i}', 'label': 'human' if i % 2 else 'entity'} for i in range(40)]
  write(tmp_path / 'trec', 'train.jsonl', rows)
  task = jsonl.jsonl_task('trec', str(tmp_path))
  loaded = {split: task.load(split, BYTES, LENGTHS) for split in task.splits}
  assert set(loaded) == {'train', 'validation'}
  assert collections.Counter(e.targets_text for e in loaded['validation']) == {
    'human': 2,
    'entity': 2,
  }
  assert len(loaded['train']) == 36


def test_faults(tmp_path):
  write(tmp_path / 'rte', 'test.jsonl', [{'premise': 'a', 'hypothesis': 'b', 'label': 'maybe'}])
  with pytest.raises(UserError, match=r"test\.jsonl:1: label 'maybe' is none of entailment"):
    jsonl.jsonl_task('rte', str(tmp_path)).load('test', BYTES, LENGTHS)
  write(tmp_path / 'rte', 'test.jsonl', [{'premise': 'a', 'label': 'entailment'}])
  with pytest.raises(UserError, match=r"test\.jsonl:1: no column 'hypothesis'"):
    jsonl.jsonl_task('rte', str(tmp_path)).load('test', BYTES, LENGTHS)
  for name, row, says in [
    ('sst2', {'sentence': 'a', 'label': None}, 'label None is no index of negative, positive'),
    ('banking77', {'text': 'a', 'label': None}, 'label None is no index of'),
    ('copa', {'premise': 'a'}, 'no column'),
    ('trec', {'question': None, 'label': 'human'}, "column 'question' is null"),
    ('xquad', {'question': 'a', 'context': 'b', 'answers': []}, 'a column holds what .* never'),
    ('asset', {'source': 'a', 'references': None}, 'a column holds what .* never'),
  ]:
    write(tmp_path / name, 'test.jsonl', [row])
    with pytest.raises(UserError, match=rf'test\.jsonl:1: {says}'):
      jsonl.jsonl_task(name, str(tmp_path)).load('test', BYTES, LENGTHS)
  with pytest.raises(UserError, match=r'No files of cb in .*cb: expected train\.jsonl'):
    jsonl.jsonl_task('cb', str(tmp_path))
  with pytest.raises(UserError, match=r'train\.de\.jsonl.*There are: test\.jsonl'):
    jsonl.jsonl_task('rte.de', str(tmp_path))
  with pytest.raises(UserError, match="Did you mean 'sst2'"):
    jsonl.jsonl_task('sst', str(tmp_path))


def test_find(tmp_path):
  write(tmp_path / 'trec', 'test.jsonl', [{'question': 'q', 'label': 'human'}])
  folder = str(tmp_path)
  assert find.find('trec', folder).load('test', BYTES, LENGTHS)[0].inputs_text == 'trec question: q'
  taskless = find.find('taskless_trec', folder)
  assert taskless.name == 'taskless_trec'
  assert taskless.load('test', BYTES, LENGTHS)[0].inputs_text == 'question: q'
  assert find.find('docstrings_iid').labels
  assert find.find('taskless_glue_mrpc').metrics == ('f1', 'accuracy')
  assert find.find('super_glue_wsc').score is not None
  with pytest.raises(UserError, match='need the --folder'):
    find.find('trec')
  with pytest.raises(UserError, match='Did you mean'):
    find.find('docstring_iid')
  for name in find.names():
    assert find.find(name).name == name
