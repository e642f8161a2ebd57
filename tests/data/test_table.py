"""Reading tables: formats, and one clear error for each fault."""

import contextlib
import gzip
import json

import hypothesis
import pytest
from hypothesis import strategies

from prompt_jax.data.table import read_table
from prompt_jax.errors import UserError


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
    ('a.xml', 'x', r'a\.xml: unknown kind of file; known: \.tsv, \.csv'),
    ('a.csv', '', r'a\.csv: the file is empty'),
    ('a.tsv', '\n\n', r'a\.tsv: the file is empty'),
    ('a.csv', 'text,label\n', r'a\.csv: the file has no rows'),
    ('a.jsonl', '\n', r'a\.jsonl: the file has no rows'),
    ('a.csv', 'text,label,text\nx,y,z\n', r"a\.csv:1: two columns are named 'text'"),
    ('a.tsv', 'text\t\nx\ty\n', r'a\.tsv:1: column 2 has no name'),
    ('a.tsv', 'text\tlabel\nx\ty\nx\ty\tz\n', r'a\.tsv:3: 3 fields, but .* 2 columns'),
    ('a.csv', 'text,label\nx\n', r'a\.csv:2: 1 fields'),
    ('a.csv', 'text,label\nx,y\n"x,y\n', r'a\.csv:3: bad CSV .*doubling quotes'),
    ('a.jsonl', '{"text": "x"}\n{"text": x}\n', r'a\.jsonl:2: bad JSON .*column 10'),
    ('a.json', '[\n', r'a\.json:1: bad JSON .*one object'),
    ('a.jsonl', '[1]\n', r'a\.jsonl:1: a JSON list, expected one object a line'),
    ('a.jsonl', '{"a": 1, "a": 2}\n', r"a\.jsonl:1: the name 'a' stands twice"),
    ('a.jsonl', '{}\n{"text": "\\ud83d!"}\n', r'a\.jsonl:2: \\ud83d is half of a character'),
    ('a.jsonl', '{"\\udc80": "x"}\n', r'a\.jsonl:1: \\udc80 is half of a character'),
    ('a.jsonl', '{"label": ' + '9' * 5000 + '}\n', r'a\.jsonl:1: bad JSON .*in quotes'),
    ('a.jsonl', '{}\n' + '[' * 9999 + ']' * 9999, r'a\.jsonl:2: JSON nested too deeply'),
    ('a.tsv', b'text\tlabel\nx\ty\ncaf\xe9\tz\n', r'a\.tsv:3: not UTF-8 \(byte 0xe9\).*iconv'),
    ('a.tsv', 'text\tlabel'.encode('utf-16'), r'a\.tsv:1: not UTF-8'),
  ],
)
def test_faults(tmp_path, name, content, message):
  with pytest.raises(UserError, match=message):
    read_table(write(tmp_path, name, content))


def test_bad_files(tmp_path):
  with pytest.raises(UserError, match=r'no\.tsv: there is no such file'):
    read_table(tmp_path / 'no.tsv')
  (tmp_path / 'a.tsv.gz').write_bytes(b'text\n')
  with pytest.raises(UserError, match=r'not a whole gzip file'):
    read_table(tmp_path / 'a.tsv.gz')
  (tmp_path / 'a.tsv.gz').write_bytes(gzip.compress(b'text\nx\n')[:-9])
  with pytest.raises(UserError, match=r'not a whole gzip file'):
    read_table(tmp_path / 'a.tsv.gz')
  with pytest.raises(UserError, match='there is no such file'):
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
