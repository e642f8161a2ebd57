"""Data sets in a folder: every one of the shared folder, and faults by file and line."""

import collections
import json

import pytest

from prompt_jax.data.example import Lengths
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from prompt_jax.tasks import find
from tests.shared import facts, shared

BYTES = ByteVocabulary()
LENGTHS = Lengths(4000, 1000)
LANGUAGES = {'sib200': 'eng_Latn', 'nusax_senti': 'javanese', 'xcopa': 'it', 'xquad': 'de'}
SHARED = (
  'rte', 'cb', 'copa', 'boolq', 'wic', 'sst2', 'mrpc', 'trec', 'ag_news', 'mnli', 'banking77',
  'xquad', 'squad_qg', 'restaurant8k', 'sib200', 'xcopa', 'nusax_senti', 'webnlg2017', 'asset',
  'tatoeba_en_deu', 'dialogsum',
)  # fmt: skip


def write(folder, name, rows):
  folder.mkdir(exist_ok=True)
  (folder / name).write_text('\n'.join(json.dumps(row) for row in rows))


@pytest.mark.parametrize('name', SHARED)
def test_data_sets(name):
  folder = shared('data')
  base, _, code = name.partition('_en_')
  about = json.loads((folder / 'datasets.json').read_text())[base]['splits']
  language = LANGUAGES.get(name, '')
  task = find.find(f'{name}.{language}' if language else name, str(folder))
  loaded = {split: task.load(split, BYTES, LENGTHS) for split in task.splits}
  dot = f'.{language or code}' if language or code else ''
  checked = 0
  for split in ('train', 'validation', 'test'):
    facts = about.get(f'{split}{dot}')
    if facts and (split != 'train' or f'validation{dot}' in about):
      assert len(loaded[split]) == facts['examples']
      checked += 1
  assert checked
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
  first = find.find(name, folder).load('train', BYTES, LENGTHS)[0]
  assert first.inputs_text.startswith(inputs)
  assert first.targets_text == targets
  bare = find.find(f'taskless_{name}', folder).load('train', BYTES, LENGTHS)[0]
  assert first.inputs_text == f'{name} {bare.inputs_text}'


def test_banking77_has_its_labels_and_a_drawn_validation_split():
  task = find.find('banking77', str(shared('data')))
  assert len(task.labels) == 77
  assert 'card arrival' in task.labels
  sizes = {split: len(task.load(split, BYTES, LENGTHS)) for split in task.splits}
  assert sizes['train'] + sizes['validation'] == 10003
  assert 900 < sizes['validation'] < 1100
  assert sizes['test'] == 3080


def test_without_a_validation_file_some_training_rows_are_held_out(tmp_path):
  rows = [{'question': f'q{i}', 'label': 'human' if i % 2 else 'entity'} for i in range(40)]
  write(tmp_path / 'trec', 'train.jsonl', rows)
  task = find.find('trec', str(tmp_path))
  loaded = {split: task.load(split, BYTES, LENGTHS) for split in task.splits}
  assert set(loaded) == {'train', 'validation'}
  assert collections.Counter(e.targets_text for e in loaded['validation']) == {
    'human': 2,
    'entity': 2,
  }
  assert len(loaded['train']) == 36


def test_faults(tmp_path):
  write(tmp_path / 'rte', 'test.jsonl', [{'premise': 'a', 'hypothesis': 'b', 'label': 'maybe'}])
  with pytest.raises(UserError, match=facts('test.jsonl:1', "'maybe'", 'entailment')):
    find.find('rte', str(tmp_path)).load('test', BYTES, LENGTHS)
  write(tmp_path / 'rte', 'test.jsonl', [{'premise': 'a', 'label': 'entailment'}])
  with pytest.raises(UserError, match=facts('test.jsonl:1', "'hypothesis'")):
    find.find('rte', str(tmp_path)).load('test', BYTES, LENGTHS)
  for name, row, says in [
    ('mnli', {'premise': 'a', 'hypothesis': 'b', 'label': '0'}, "'0'"),
    ('sst2', {'sentence': 'a', 'label': None}, 'None'),
    ('banking77', {'text': 'a', 'label': None}, 'None'),
    ('copa', {'premise': 'a'}, 'column'),
    ('trec', {'question': None, 'label': 'human'}, "'question'"),
    ('squad', {'question': 'a', 'context': 'b', 'answers': []}, 'column'),
    ('asset', {'source': 'a', 'references': None}, 'column'),
  ]:
    write(tmp_path / name, 'test.jsonl', [row])
    with pytest.raises(UserError, match=facts('test.jsonl:1', says)):
      find.find(name, str(tmp_path)).load('test', BYTES, LENGTHS)
  with pytest.raises(UserError, match=facts('cb', 'train.jsonl')):
    find.find('cb', str(tmp_path))
  with pytest.raises(UserError, match="'sst2'"):
    find.find('sst', str(tmp_path))


def test_find(tmp_path):
  write(tmp_path / 'trec', 'test.jsonl', [{'question': 'q', 'label': 'human'}])
  folder = str(tmp_path)
  assert find.find('trec', folder).load('test', BYTES, LENGTHS)[0].inputs_text == 'trec question: q'
  taskless = find.find('taskless_trec', folder)
  assert taskless.name == 'taskless_trec'
  assert taskless.load('test', BYTES, LENGTHS)[0].inputs_text == 'question: q'
  assert find.find('docstrings_iid').labels
  assert find.find('taskless_glue_mrpc').metrics == ('f1', 'accuracy')
  assert find.find('super_glue_wsc').right is not None
  with pytest.raises(UserError, match='folder') as error:
    find.find('trec')
  assert error.value.parameters == ('folder',)
  with pytest.raises(UserError, match="'docstrings_iid'"):
    find.find('docstring_iid')


def bad_rows(tmp_path):
  rows = [{'question': f'q{i}', 'label': 'human', 'idx': i} for i in range(4)]
  rows[1]['label'] = 'nobody'
  rows[2]['question'] = None
  rows.append({**rows[0], 'question': 'again'})
  write(tmp_path / 'trec', 'test.jsonl', rows)


def test_bad_rows_are_refused_or_counted_and_left_out(tmp_path):
  bad_rows(tmp_path)
  task = find.find('trec', str(tmp_path))
  with pytest.raises(UserError, match=facts('test.jsonl:2', "'nobody'")):
    task.load('test', BYTES, LENGTHS)
  task = find.find('trec', str(tmp_path), bad='skip')
  with pytest.warns(UserWarning, match=facts('3', '2', 'jsonl:2', "'nobody'")):
    examples = task.load('test', BYTES, LENGTHS)
  assert [e.inputs_text for e in examples] == ['trec question: q0', 'trec question: q3']


def test_two_rows_of_one_id_are_a_fault(tmp_path):
  rows = [{'question': 'q', 'label': 'human', 'idx': i} for i in (7, 8, 7)]
  write(tmp_path / 'trec', 'test.jsonl', rows)
  with pytest.raises(UserError, match=facts('test.jsonl:3', '7', 'test.jsonl:1')):
    find.find('trec', str(tmp_path)).load('test', BYTES, LENGTHS)


def test_mixed_encodings_and_lines_of_ten_megabytes_are_faults(tmp_path):
  (tmp_path / 'trec').mkdir()
  file = tmp_path / 'trec' / 'test.jsonl'
  good = json.dumps({'question': 'q', 'label': 'human'}).encode()
  file.write_bytes(good + b'\n' + good.replace(b'"q"', b'"caf\xe9"'))
  with pytest.raises(UserError, match=facts('test.jsonl:2', 'UTF-8', '0xe9')):
    find.find('trec', str(tmp_path)).load('test', BYTES, LENGTHS)
  file.write_bytes(good + b'\n' + good.replace(b'"q"', b'"' + b'q' * 10_000_001 + b'"'))
  with pytest.raises(UserError, match=facts('test.jsonl:2', '10.0 million')):
    find.find('trec', str(tmp_path)).load('test', BYTES, LENGTHS)
