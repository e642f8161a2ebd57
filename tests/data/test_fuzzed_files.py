"""Any file is a task with as many rows as the file, or refused in words; never a traceback.

FUZZED=10000 in the environment runs so many files; by default a few.
"""

import contextlib
import csv
import io
import json
import os
import pathlib
import warnings

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prompt_jax.data.example import Lengths
from prompt_jax.data.local_file import local_inputs, local_task
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from prompt_jax.evaluation import findings

COUNT = int(os.environ.get('FUZZED', 200))
FUZZ = settings(
  max_examples=COUNT,
  deadline=None,
  suppress_health_check=list(HealthCheck),
  derandomize=COUNT <= 200,
  database=None,
)
LENGTHS = Lengths(32, 16)
BYTES = ByteVocabulary()
ODD = [
  '', ' ', 'nan', 'NaN', 'None', 'null', '-1', '0', '1e999', 'a,b', 'a;b', 'a\tb', 'a\nb', 'a\r\nb',
  '"', '""', '"a', "'", '\\', '\ufeff', '\u2028', '\x0c', '\x85', '\0', 'ä', '漢字', '🙂',
  'x' * 200, '<unk>', '</s>',
]  # fmt: skip
TEXT = st.one_of(st.sampled_from(ODD), st.text(max_size=12))
NAMES = st.lists(
  st.sampled_from(
    ['text', 'label', 'Text', 'sentence', 'question', 'answer', 'answers', 'targets', 'inputs',
     'premise', 'hypothesis', 'group', 'id', '', ' ', 'Unnamed: 0', 'a;b', 'ä']
  ),
  min_size=1, max_size=4,
)  # fmt: skip
VALUES = st.one_of(
  TEXT,
  st.none(),
  st.booleans(),
  st.integers(),
  st.floats(),
  st.just(10**400),
  st.lists(TEXT, max_size=2),
  st.dictionaries(TEXT, TEXT, max_size=1),
)
ENCODINGS = st.sampled_from(
  ['utf-8', 'utf-8', 'utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32', 'latin1', 'cp1252']
)
COLUMNS = st.sampled_from(
  [
    {},
    {'text': 'text', 'label': 'label'},
    {'inputs': 'text', 'targets': 'label'},
    {'text': ['text', 'id']},
    {'targets': 'answers'},
    {'text': 'text', 'label': 'label', 'groups': True},
  ]
)


@st.composite
def tables(draw):
  """(name, bytes, rows that were meant, or None where damage leaves that open)."""
  kind = draw(st.sampled_from(['tsv', 'csv', 'jsonl', 'json']))
  names = draw(st.one_of(NAMES, st.just(['text', 'label'])))
  usual = st.sampled_from(['good', 'bad', 'film'])
  cells = draw(st.sampled_from([usual, usual, TEXT, VALUES if 'json' in kind else TEXT]))
  row = st.lists(st.one_of(usual, cells), min_size=len(names), max_size=len(names))
  rows = draw(st.lists(row, max_size=12))
  meant: int | None = len(rows)
  end = draw(st.sampled_from(['\n', '\r\n']))
  if 'json' in kind:
    ascii_only = draw(st.booleans())
    objects = [dict(zip(names, row, strict=True)) for row in rows]
    text = ''.join(f'{json.dumps(row, ensure_ascii=ascii_only)}{end}' for row in objects)
  else:
    usual_one = ',' if kind == 'csv' else '\t'
    separator = draw(st.sampled_from([usual_one, usual_one, ',', '\t', ';', '|']))
    if kind == 'csv' and draw(st.booleans()):
      out = io.StringIO()
      csv.writer(out, delimiter=separator, lineterminator=end).writerows([names, *rows])
      text = out.getvalue()
    else:
      text = ''.join(separator.join(row) + end for row in [names, *rows])
      plain = all(not set(cell) & set('\n\r"\t,;|') for row in [names, *rows] for cell in row)
      meant = len(rows) if plain else None
  raw = text.encode(draw(ENCODINGS), errors='replace')
  if draw(st.integers(0, 9)) == 0:
    at = draw(st.integers(0, len(raw)))
    raw = raw[:at] + draw(st.binary(max_size=3)) + raw[at + draw(st.integers(0, 3)) :]
    meant = None
  return f'a.{kind}', raw, meant


def read(path, columns):
  """The number of rows of a file that is a task; None where it is refused."""
  given = {**columns, 'labels': None}
  groups = given.pop('groups', False)
  task = local_task(test=path, groups=groups, **given)
  examples = task.load('test', BYTES, LENGTHS)
  assert all(e.inputs_text and len(e.targets) > 1 for e in examples)
  findings.findings(task, {'test': examples}, BYTES, LENGTHS.targets)
  return len(examples)


def test_a_file_is_read_whole_or_refused(tmp_path):
  done = []

  @FUZZ
  @given(tables(), COLUMNS)
  @example(('a.tsv', b'text\tlabel\n\t\n', 1), {})
  @example(('a.csv', b'text,label\r\n"a\nb",good\r\n', 1), {})
  def check(table, columns):
    name, raw, meant = table
    path = tmp_path / name
    path.write_bytes(raw)
    for function in (lambda: read(str(path), columns), lambda: len(local_inputs(str(path)))):
      with contextlib.suppress(UserError):
        found = function()
        done.append(found)
        assert meant is None or found == meant

  check()
  # Most are refused; of those that are not, many have several rows.
  assert len(done) > COUNT / 10
  assert sum(done) > COUNT / 5


@FUZZ
@given(st.lists(TEXT, min_size=1, max_size=8), ENCODINGS, st.sampled_from(['\n', '\r\n']))
def test_a_text_file_has_an_input_for_every_line(tmp_path_factory, lines, encoding, end):
  text = end.join(lines)
  path = tmp_path_factory.getbasetemp() / 'a.txt'
  path.write_bytes(text.encode(encoding, errors='replace'))
  try:
    found = local_inputs(str(path))
  except UserError:
    return
  if encoding.startswith('utf-8'):
    assert len(found) == text.removesuffix('\n').count('\n') + 1


@FUZZ
@given(st.lists(st.dictionaries(st.sampled_from(['text', 'label', 'answers']), VALUES), max_size=6))
def test_rows_in_memory_are_read_whole_or_refused(rows):
  with contextlib.suppress(UserError):
    assert read(rows, {}) == len(rows)


@settings(FUZZ, max_examples=max(COUNT // 4, 20))
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=6))
def test_data_frames_are_read_whole_or_refused(rows):
  pandas = pytest.importorskip('pandas')
  with warnings.catch_warnings():
    warnings.simplefilter('ignore', category=RuntimeWarning)
    frame = pandas.DataFrame(rows, columns=['text', 'label'])
  with contextlib.suppress(UserError):
    assert read(frame, {}) == len(rows)


@FUZZ
@given(
  st.binary(max_size=40),
  st.sampled_from(['a.tsv', 'a.csv', 'a.jsonl', 'a.txt', 'a.tsv.gz', 'a.npz']),
)
def test_bytes_are_read_or_refused(tmp_path_factory, raw, name):
  path = pathlib.Path(tmp_path_factory.getbasetemp()) / name
  path.write_bytes(raw)
  for function in (lambda: read(str(path), {}), lambda: local_inputs(str(path))):
    with contextlib.suppress(UserError):
      function()
