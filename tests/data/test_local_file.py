"""One's own file as a task: columns, labels, held-out rows, and faults named by file and line."""

import collections
import json

import pytest

from prompt_jax.data.columns import ColumnChoice, choose_columns
from prompt_jax.data.example import Lengths
from prompt_jax.data.local_file import local_inputs, local_task
from prompt_jax.data.table import read_table
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from prompt_jax.evaluation.suite import f1_label
from prompt_jax.features import COLUMNS
from tests.shared import facts

BYTES = ByteVocabulary()
LENGTHS = Lengths(64, 32)


def write(folder, name, content):
  (folder / name).write_text(content, encoding='utf-8')
  return str(folder / name)


def reviews(n=40, start=0):
  lines = [f'film {i}\t{"good" if i % 4 else "bad"}' for i in range(start, start + n)]
  return '\n'.join(['sentence\tlabel', *lines])


def test_one_file_is_split_by_label(tmp_path):
  task = local_task(write(tmp_path, 'reviews.tsv', reviews()))
  splits = {s: task.load(s, BYTES, LENGTHS) for s in task.splits}
  assert {s: len(e) for s, e in splits.items()} == {'train': 32, 'validation': 4, 'test': 4}
  assert task.name == 'reviews'
  assert task.labels == ('bad', 'good')
  assert task.metrics == ('accuracy', 'f1_macro')
  for examples in splits.values():
    assert collections.Counter(e.targets_text for e in examples)['bad'] == len(examples) / 4
    assert all(task.labels[e.label] == e.targets_text for e in examples)
  texts = [e.inputs_text for examples in splits.values() for e in examples]
  assert sorted(texts) == sorted(f'film {i}' for i in range(40))


def test_files_for_validation_and_test(tmp_path):
  train = write(tmp_path, 'train.tsv', reviews())
  dev = write(tmp_path, 'dev.csv', 'label,sentence\ngood,fine\n')
  test = write(tmp_path, 'test.jsonl', json.dumps({'sentence': 'dull', 'label': 'bad'}))
  assert set(local_task(train, validation=dev).splits) == {'train', 'validation'}
  both = local_task(train, validation=dev, test=test)
  (example,) = both.load('test', BYTES, LENGTHS)
  assert (example.inputs_text, example.targets_text, example.label) == ('dull', 'bad', 0)
  assert len(both.load('train', BYTES, LENGTHS)) == 40
  drawn = local_task(train, test=test)
  assert len(drawn.load('validation', BYTES, LENGTHS)) == 4
  assert len(drawn.load('test', BYTES, LENGTHS)) == 1


def test_labels_given_keep_their_order(tmp_path):
  test = write(tmp_path, 'test.tsv', 'text\tlabel\nfine\tgood\nfiner\tgood\n')
  task = local_task(test=test, labels=('good', 'so-so', 'bad'), words={'good': 'great'})
  assert task.labels == ('great', 'so-so', 'bad')
  assert task.words == {'good': 'great', 'so-so': 'so-so', 'bad': 'bad'}
  assert [(e.label, e.targets_text) for e in task.load('test', BYTES, LENGTHS)] == [
    (0, 'great')
  ] * 2
  with pytest.raises(UserError, match=facts('test.tsv:2', "'good'", 'no, yes')):
    local_task(test=test, labels=('yes', 'no'))


def test_several_columns_are_joined_as_t5_does(tmp_path):
  path = write(tmp_path, 'nli.csv', 'premise,hypothesis,label\n' + 'a,b,yes\nc,d,no\n' * 9)
  task = local_task(train=None, test=path, text='hypothesis,premise', labels=['yes', 'no'])
  assert task.load('test', BYTES, LENGTHS)[0].inputs_text == 'hypothesis: b premise: a'


def test_text_to_text(tmp_path):
  rows = [json.dumps({'inputs': f'question {i}', 'targets': f'answer {i}'}) for i in range(30)]
  task = local_task(write(tmp_path, 'qa.jsonl', '\n'.join(rows)))
  assert task.labels is None
  assert task.metrics == ('exact_match', 'bleu')
  example = task.load('train', BYTES, LENGTHS)[0]
  assert example.label is None
  assert example.targets_text == example.inputs_text.replace('question', 'answer')


def test_numbers_and_truth_values_of_json(tmp_path):
  rows = [json.dumps({'text': f't{i}', 'label': v}) for i, v in enumerate([0, 1, True, 0.5])]
  task = local_task(test=write(tmp_path, 'a.jsonl', '\n'.join(rows)))
  assert task.labels == ('0', '0.5', '1', 'true')


@pytest.mark.parametrize(
  ('header', 'given', 'expected'),
  [
    ('Text\tLABEL', {}, (('Text',), 'LABEL', 'label')),
    ('id\treview\tsentiment', {}, (('review',), 'sentiment', 'label')),
    ('text\treview\tlabel', {'text': 'text'}, (('text',), 'label', 'label')),
    ('premise\ttext\tlabel', {'text': 'premise,text'}, (('premise', 'text'), 'label', 'label')),
    ('input\toutput', {}, (('input',), 'output', 'text')),
    ('text\tsummary', {}, (('text',), 'summary', 'text')),
    ('a\tb', {'text': 'a', 'label': 'b'}, (('a',), 'b', 'label')),
    ('a\tb', {'inputs': ['a'], 'targets': 'b'}, (('a',), 'b', 'text')),
    ('a\tlabel', {'text': 'a'}, (('a',), 'label', 'label')),
  ],
)
def test_columns(tmp_path, header, given, expected):
  row = '\t'.join('x' for _ in header.split('\t'))
  assert (
    choose_columns(read_table(write(tmp_path, 'a.tsv', f'{header}\n{row}')), **given) == expected
  )


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (
      'I liked it\tpositive\nx\ty\n',
      facts('a.tsv:1', "'I liked it'", "'positive'"),
    ),
    ('text\tscore\nx\ty\n', facts('a.tsv:1', 'label=NAME')),
    ('review\tcomment\tlabel\nx\ty\tz\n', facts('review', 'comment', 'text=NAME')),
    ('text\tlabel\tanswer\nx\ty\tz\n', facts('text/label', 'inputs/targets')),
    ('text\tlabel\nx\ta\n \tb\n', facts('a.tsv:3', "'text'", 'empty')),
    ('text\tlabel\nx\ta\ny\t\n', facts('a.tsv:3', "'label'", 'empty')),
    ('text\tlabel\nx\ta\ny\ta\n', "label 'a'"),
    ('text\tlabel\nx\ta\ny\tb\n', facts('2 rows', '2')),
    ('text\tlabel\n' + ''.join(f't{i}\tl{i}\n' for i in range(20)), '20'),
  ],
)
def test_faults(tmp_path, content, message):
  with pytest.raises(UserError, match=message):
    local_task(write(tmp_path, 'a.tsv', content))


def test_faults_of_other_files(tmp_path):
  train = write(tmp_path, 'train.tsv', reviews())
  with pytest.raises(UserError, match=facts('dev.tsv:3', "'godo'", "'good'")):
    local_task(train, validation=write(tmp_path, 'dev.tsv', 'sentence\tlabel\na\tgood\nb\tgodo'))
  with pytest.raises(UserError, match=facts('dev.tsv:1', "'sentence'", 'label, text')):
    local_task(train, validation=write(tmp_path, 'dev.tsv', 'text\tlabel\na\tgood\n'))
  with pytest.raises(UserError, match=facts('a.jsonl:2', "'label'")):
    local_task(write(tmp_path, 'a.jsonl', '{"text": "a", "label": "b"}\n{"text": "a"}\n'))
  with pytest.raises(UserError, match=facts('a.jsonl:1', "'text'", 'list')):
    local_task(
      write(tmp_path, 'a.jsonl', '{"text": ["a"], "label": "b"}\n{"text": "a", "label": "c"}')
    )
  with pytest.raises(UserError, match='data'):
    local_task()
  with pytest.raises(UserError, match='text'):
    local_task(train, text='sentence', targets='label')
  with pytest.raises(UserError, match=facts('words', "'goood'")):
    local_task(train, words={'goood': 'great'})
  with pytest.raises(UserError, match=facts('held_out_fraction', '0.5')):
    local_task(train, held_out_fraction=0.5)


def test_a_label_without_tokens_is_refused_when_loaded(tmp_path, vocabulary):
  # A zero-width space is a character, but the vocabulary's normalisation removes it.
  path = write(tmp_path, 'a.tsv', 'text\tlabel\nx\tgood\ny\t\u200b\n')
  with pytest.raises(UserError, match=facts('a.tsv:3', 'target', 'tokens')):
    local_task(test=path).load('test', vocabulary, LENGTHS)
  unseen = local_task(test=path, labels=['good', '\u200b'])
  with pytest.raises(UserError, match=facts('a.tsv:3', 'target', 'tokens')):
    unseen.load('test', vocabulary, LENGTHS)


def test_inputs_alone(tmp_path):
  lines = local_inputs(write(tmp_path, 'a.txt', 'one\n\ntwo \n'))
  assert [(e.inputs, e.source.rsplit(':')[-1]) for e in lines] == [
    ('one', '1'),
    ('', '2'),
    ('two', '3'),
  ]
  rows = local_inputs(write(tmp_path, 'a.jsonl', '{"inputs": "one", "id": 7}'))
  assert rows[0].inputs == 'one'
  assert rows[0].fields['id'] == 7
  with pytest.raises(UserError, match='text'):
    local_inputs(write(tmp_path, 'b.txt', '\n'))
  with pytest.raises(UserError, match=facts('a.tsv:1', "'x'")):
    local_inputs(write(tmp_path, 'a.tsv', 'x\ny\n'))


def multiple_choice(folder):
  """A file whose column "answers" holds the options, and whose column "group" is no group."""
  rows = [
    {'question': f'q{i}?', 'answers': ['a', 'b', 'c'], 'answer': 'abc'[i % 3], 'group': i // 2}
    for i in range(6)
  ]
  return write(folder, 'mc.jsonl', '\n'.join(map(json.dumps, rows)))


def test_a_column_of_options_is_no_right_answer(tmp_path):
  found = local_task(test=multiple_choice(tmp_path)).load('test', BYTES, LENGTHS)
  assert [e.targets_text for e in found] == list('abcabc')
  assert all(e.fields.keys() == {COLUMNS} for e in found)  # neither answers nor groups


def test_right_answers_and_groups_are_those_asked_for(tmp_path):
  task = local_task(test=multiple_choice(tmp_path), targets='answers', groups=True)
  (first, *_) = task.load('test', BYTES, LENGTHS)
  assert first.targets_text == 'a'
  own = {name: value for name, value in first.fields.items() if name != COLUMNS}
  assert own == {'answers': ['a', 'b', 'c'], 'group': '0'}
  for answers, said in (([], 'no answers'), (['a', ''], 'empty'), (['a', {}], 'dict')):
    row = json.dumps({'inputs': 'a', 'targets': answers})
    with pytest.raises(UserError, match=facts('a.jsonl:1', "'targets'", said)):
      local_task(test=write(tmp_path, 'a.jsonl', row))


@pytest.mark.parametrize(
  ('header', 'said'),
  [
    ('index\tquestion\tsentence\tlabel', ('question', 'sentence', 'text=question,sentence')),
    ('question\tpassage\tanswer', ('question', 'passage', 'inputs=question,passage')),
    ('premise\thypothesis\tlabel', ('premise', 'hypothesis', 'text=premise,hypothesis')),
    ('text\tsentence\tlabel', ('text', 'sentence', 'text=NAME')),
    ('Text\ttext\tlabel', ('Text or text',)),
    ('context\tlabel', ('context', 'text=NAME')),
    ('text\tlabel\ttopic', ('label or topic', 'label=NAME')),
    ('input\toutput\tsummary', ('output or summary', 'targets=NAME')),
  ],
)
def test_of_columns_that_may_be_meant_none_is_guessed(tmp_path, header, said):
  row = '\t'.join('x' for _ in header.split('\t'))
  table = read_table(write(tmp_path, 'a.tsv', f'{header}\n{row}'))
  with pytest.raises(UserError, match=facts('a.tsv:1', *said)):
    choose_columns(table)


def test_columns_are_those_of_the_task_that_a_prompt_was_tuned_on(tmp_path):
  pair = ColumnChoice(('question', 'sentence'), 'label', 'label')
  table = read_table(write(tmp_path, 'a.tsv', 'question\tsentence\tlabel\ta\n1\t2\t3\t4'))
  assert choose_columns(table, like=pair) == pair
  assert choose_columns(table, text='a', like=pair).inputs == ('a',)
  # One text is read without its name, so that another table may call it otherwise.
  other = read_table(write(tmp_path, 'b.tsv', 'text\ttopic\n1\t2'))
  one = ColumnChoice(('utterance',), 'intent', 'label')
  assert choose_columns(other, like=one) == (('text',), 'topic', 'label')
  with pytest.raises(UserError, match=facts('b.tsv:1', "'question'", 'text, topic')):
    choose_columns(other, like=pair)
  task = local_task(test=table_file(tmp_path), like=pair, labels=['3', '5'])
  assert task.columns == {'inputs': ('question', 'sentence'), 'targets': 'label', 'kind': 'label'}
  assert [e.inputs for e in local_inputs(table_file(tmp_path), like=pair)] == [
    'question: 1 sentence: 2'
  ]


def table_file(folder):
  return str(folder / 'a.tsv')


@pytest.mark.parametrize('value', ['NaN', 'Infinity', '-Infinity', '1e999', 'null', '[]', '{}'])
@pytest.mark.parametrize('column', ['text', 'label'])
def test_what_is_no_value_is_refused_with_its_line(tmp_path, value, column):
  rows = [f'{{"text": "t{i}", "label": "{"ab"[i % 2]}", "score": NaN}}' for i in range(20)]
  path = write(tmp_path, 'a.jsonl', '\n'.join(rows))
  assert local_task(path).labels == ('a', 'b')  # a column that is not read may hold anything
  rows[6] = json.dumps({'text': 't', 'label': 'a', column: 0}).replace(': 0', f': {value}')
  with pytest.raises(UserError, match=facts('a.jsonl:7', repr(column))):
    local_task(write(tmp_path, 'a.jsonl', '\n'.join(rows)))


def test_f1_is_of_the_label_that_is_named(tmp_path):
  train = write(tmp_path, 'a.tsv', reviews())
  with pytest.raises(UserError, match=facts('f1', 'labels', 'f1_macro')) as refused:
    local_task(train, metrics=['f1'])
  assert 'labels' in refused.value.parameters
  assert f1_label(local_task(train, metrics=['f1'], labels=['good', 'bad'])) == '; f1 of bad'
  words = {'bad': 'poor'}
  found = local_task(train, metrics=['f1'], labels=['good', 'bad'], words=words)
  assert f1_label(found) == '; f1 of poor'
  assert f1_label(local_task(train)) == ''
