"""Reading tables: formats, and one clear error for each fault."""

import contextlib
import gzip
import json

import hypothesis
import pytest
from hypothesis import strategies

from prompt_jax.data.table import read_table
from prompt_jax.errors import UserError
from tests.shared import facts


def write(folder, name, content):
  raw = content if isinstance(content, bytes) else content.encode('utf-8')
  (folder / name).write_bytes(gzip.compress(raw) if name.endswith('.gz') else raw)
  return folder / name


@pytest.mark.parametrize(
  ('name', 'content'),
  [
    ('a.tsv', 'text\tlabel\ngood "one"\t1\n\nbad, one\t0\n'),
    ('a.tsv.gz', '\ufefftext\tlabel\r\ngood "one"\t1\r\n\r\nbad, one\t0'),
    ('a.csv', 'text,label\n"good ""one""",1\n\n"bad, one",0\n'),
    ('a.CSV', 'text,label\r\n"good ""one""",1\r\n\r\n"bad, one",0\r\n'),
    ('a.jsonl', '{"text": "good \\"one\\"", "label": "1"}\n\n{"text": "bad, one", "label": "0"}'),
  ],
)
def test_formats(tmp_path, name, content):
  table = read_table(write(tmp_path, name, content))
  assert table.columns == ('text', 'label')
  assert [(row.line, row.values) for row in table.rows] == [
    (row_line, {'text': text, 'label': label})
    for row_line, text, label in (
      (1 if 'json' in name else 2, 'good "one"', '1'),
      (3 if 'json' in name else 4, 'bad, one', '0'),
    )
  ]


def test_csv_rows_count_physical_lines(tmp_path):
  table = read_table(write(tmp_path, 'a.csv', 'text,label\n"two\nlines",1\nnext,0\n'))
  assert [row.line for row in table.rows] == [2, 4]


def test_odd_line_separators_stay_in_a_text(tmp_path):
  content = '{"text": "a\u2028b\x85c"}\n'
  assert read_table(write(tmp_path, 'a.jsonl', content)).rows[0].values == {'text': 'a\u2028b\x85c'}
  content = 'text\na\u2028b\x0bc\n'
  assert read_table(write(tmp_path, 'a.tsv', content)).rows[0].values == {'text': 'a\u2028b\x0bc'}


@pytest.mark.parametrize(
  ('name', 'content', 'message'),
  [
    ('a.xml', 'x', facts('a.xml', '.tsv', '.csv')),
    ('a.csv', '', facts('a.csv', 'empty')),
    ('a.tsv', '\n\n', facts('a.tsv', 'empty')),
    ('a.csv', 'text,label\n', facts('a.csv', 'rows')),
    ('a.jsonl', '\n', facts('a.jsonl', 'rows')),
    ('a.csv', 'text,label,text\nx,y,z\n', facts('a.csv:1', "'text'")),
    ('a.tsv', 'text\t\nx\ty\n', facts('a.tsv:1', 'column 2')),
    ('a.tsv', 'text\tlabel\nx\ty\nx\ty\tz\n', facts('a.tsv:3', '3', '2')),
    ('a.csv', 'text,label\nx\n', facts('a.csv:2', '1')),
    ('a.csv', 'text,label\nx,y\n"x,y\n', facts('a.csv:3', 'CSV', 'quotes')),
    ('a.jsonl', '{"text": "x"}\n{"text": x}\n', facts('a.jsonl:2', 'JSON', 'column 10')),
    ('a.json', '[\n', facts('a.json:1', 'JSON')),
    ('a.jsonl', '[1]\n', facts('a.jsonl:1', 'JSON', 'list')),
    ('a.jsonl', '{"a": 1, "a": 2}\n', facts('a.jsonl:1', "'a'")),
    ('a.jsonl', '{}\n{"text": "\\ud83d!"}\n', facts('a.jsonl:2', r'\ud83d')),
    ('a.jsonl', '{"\\udc80": "x"}\n', facts('a.jsonl:1', r'\udc80')),
    ('a.jsonl', '{"label": ' + '9' * 5000 + '}\n', facts('a.jsonl:1', 'JSON', 'quotes')),
    ('a.jsonl', '{}\n' + '[' * 9999 + ']' * 9999, facts('a.jsonl:2', 'JSON', 'nested')),
    ('a.tsv', b'text\tlabel\nx\ty\ncaf\xe9\tz\n', facts('a.tsv:3', 'UTF-8', '0xe9', 'iconv')),
    ('a.tsv', 'text\tlabel'.encode('utf-16'), facts('a.tsv:1', 'UTF-8', 'iconv -f utf-16 ')),
    ('a.tsv', 'text\tlabel'.encode('utf-16-le'), facts('a.tsv:1', 'iconv -f utf-16le ')),
    ('a.tsv', 'text\tläbel'.encode('utf-16-be'), facts('a.tsv:1', 'iconv -f utf-16be ')),
    ('a.tsv', 'text\tlabel'.encode('utf-32'), facts('a.tsv:1', 'iconv -f utf-32 ')),
    ('a.tsv', 'text\tlabel\nx\0y\tz', facts('a.tsv:2', 'NUL')),
    ('a.csv', 'text;label\nx;y\n', facts('a.csv:1', 'semicolons', 'commas')),
    ('a.csv', 'text\tlabel\nx\ty\n', facts('a.csv:1', 'tabs', '.tsv')),
    ('a.tsv', 'text,label\nx,y\n', facts('a.tsv:1', 'commas', '.csv')),
    ('a.tsv', 'text|label\nx|y\n', facts('a.tsv:1', 'bars', 'JSONL')),
    ('a.csv', ',text,label\n0,x,y\n', facts('a.csv:1', 'column 1', 'index=False')),
    ('a.json', '[{"text": "x"},\n{"text": "y"}]', facts('a.json:1', 'lines=True')),
  ],
)
def test_faults(tmp_path, name, content, message):
  with pytest.raises(UserError, match=message):
    read_table(write(tmp_path, name, content))


def test_bad_files(tmp_path):
  with pytest.raises(UserError, match=r'no\.tsv'):
    read_table(tmp_path / 'no.tsv')
  (tmp_path / 'a.tsv.gz').write_bytes(b'text\n')
  with pytest.raises(UserError, match='gzip'):
    read_table(tmp_path / 'a.tsv.gz')
  (tmp_path / 'a.tsv.gz').write_bytes(gzip.compress(b'text\nx\n')[:-9])
  with pytest.raises(UserError, match='gzip'):
    read_table(tmp_path / 'a.tsv.gz')
  with pytest.raises(UserError, match='file'):
    read_table('x' * 300 + '.tsv')


@pytest.mark.parametrize('name', ['a.csv', 'a.tsv', 'a.jsonl'])
def test_a_text_may_be_long(tmp_path, name):
  text = 'x' * 200_000
  content = json.dumps({'text': text}) if name == 'a.jsonl' else f'text\n{text}\n'
  assert read_table(write(tmp_path, name, content)).rows[0].values == {'text': text}


def test_both_halves_of_a_character_are_one(tmp_path):
  content = '{"text": "\\ud83d\\ude00"}'
  assert read_table(write(tmp_path, 'a.jsonl', content)).rows[0].values == {'text': '\U0001f600'}


@hypothesis.settings(
  max_examples=200,
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
  raw=strategies.binary(max_size=60) | strategies.text(max_size=60).map(str.encode),
  kind=strategies.sampled_from(['tsv', 'csv', 'jsonl', 'tsv.gz']),
)
def test_any_bytes_give_rows_or_one_clear_error(tmp_path, raw, kind):
  path = tmp_path / f'a.{kind}'
  path.write_bytes(raw)
  with contextlib.suppress(UserError):
    table = read_table(path)
    assert table.rows
    assert all(row.line >= 1 for row in table.rows)


def test_a_folder_is_no_file_and_its_files_are_named(tmp_path):
  for name in ('b.tsv', 'a.csv.gz', 'notes.txt'):
    (tmp_path / name).write_text('')
  (tmp_path / 'x.tsv').mkdir()
  with pytest.raises(UserError, match=facts(tmp_path, 'folder', 'a.csv.gz, b.tsv')):
    read_table(tmp_path)
  with pytest.raises(UserError, match=facts('x.tsv', 'folder')):
    read_table(tmp_path / 'x.tsv')


def test_a_blank_line_is_a_row_only_where_a_row_may_be_blank(tmp_path):
  cells = lambda name, content: [
    row.values for row in read_table(write(tmp_path, name, content)).rows
  ]
  one = [{'text': 'x'}, {'text': ''}, {'text': 'y'}]
  assert cells('a.tsv', 'text\nx\n\ny\n') == cells('a.csv', 'text\nx\n\ny\n') == one
  two = [{'text': 'x', 'label': '1'}, {'text': '', 'label': ''}]
  assert cells('b.tsv', 'text\tlabel\n\nx\t1\n\t\n') == two
  assert cells('b.csv', 'text,label\n\nx,1\n,\n') == two
