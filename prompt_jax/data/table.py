"""Rows of a TSV, CSV or JSON Lines file (also gzipped), each with its line number.

A TSV field is taken as it stands, quotes included, as in the GLUE files; a CSV field may be quoted
and hold line breaks. Every fault is an error that names file, line and remedy.
"""

import codecs
import csv
import gzip
import io
import json
import os
import pathlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

from prompt_jax.errors import UserError

FORMATS = {
  '.tsv': 'tsv',
  '.csv': 'csv',
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.json': 'jsonl',
}
_SEPARATORS = {',': 'commas', ';': 'semicolons', '\t': 'tabs', '|': 'bars'}
_RESAVE = {
  ',': 'Name it .csv',
  '\t': 'Name it .tsv',
  **dict.fromkeys(';|', 'Save it with commas, or as JSONL'),
}
# Characters of a line. No text that a model could read is as long.
LONGEST = 10_000_000


class TableRow(NamedTuple):
  """One row and the line it begins on, counted from 1."""

  line: int
  values: dict[str, Any]


class Table(NamedTuple):
  """A file's columns, in order of appearance, and its rows; at least one row."""

  path: pathlib.Path
  columns: tuple[str, ...]
  rows: list[TableRow]


def fail(
  path: pathlib.Path | str, line: int | None, message: str, parameters: Sequence[str] = ()
) -> NoReturn:
  """Raises a UserError that begins with file:line."""
  raise UserError(f'{path}:{line}: {message}' if line else f'{path}: {message}', parameters)


def read_table(path: str | pathlib.Path) -> Table:
  """All rows of a file; the name tells the format (.tsv, .csv, .jsonl, and each with .gz).

  Raises:
    UserError: a missing or empty file, bad gzip, UTF-8, CSV or JSON, a row with more or fewer
      fields than the header, a column named twice.
  """
  path = pathlib.Path(path)
  kind = FORMATS.get(_suffix(path))
  if kind is None:
    _refuse_folder(path)
    fail(
      path,
      None,
      f'unknown kind of file; known: {", ".join(FORMATS)}, each also with .gz. What pandas reads, '
      'its to_csv(FILE, index=False) writes as CSV',
    )
  text = read_text(path)
  if kind != 'csv' and '\r' in text.rstrip('\r') and '\n' not in text:
    fail(path, 1, 'lines end as on an old Mac; save it with the line breaks of Unix or Windows')
  if kind == 'jsonl':
    rows = list(_json_rows(path, text))
    columns = tuple(dict.fromkeys(name for row in rows for name in row.values))
  else:
    lines = _csv_lines(path, text) if kind == 'csv' else _tsv_lines(path, text)
    header = next(((number, fields) for number, fields in lines if fields), None)
    columns = _header(path, header)
    rows = list(_filled(path, columns, lines))
  if not rows:
    fail(path, None, 'the file has no rows; it needs at least one example')
  return Table(path, columns, rows)


def read_text(path: pathlib.Path) -> str:
  """The text of a UTF-8 file, unzipped if it ends in .gz; a byte-order mark is dropped."""
  _refuse_folder(path)
  if not os.path.isfile(path):  # is_file() of a path raises for a name that is too long
    fail(path, None, 'there is no such file')
  try:
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if path.suffix == '.gz' else raw
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    fail(path, None, f'not a whole gzip file ({error}); gzip it again, or drop .gz from its name')
  except OSError as error:
    fail(path, None, f'cannot be read: {error.strerror}')
  if raw.startswith(b'\x1f\x8b'):
    zipped = path.suffix == '.gz'
    fail(path, None, 'gzipped twice; gunzip it once' if zipped else 'gzipped; end its name in .gz')
  return decode(raw, path)


def read_lines(path: pathlib.Path) -> list[str]:
  """The lines of a UTF-8 file, blank ones too."""
  return lines_of(read_text(path))


def lines_of(text: str) -> list[str]:
  """The lines of a text: as many as it has line breaks, and one more if none ends it."""
  # str.splitlines would also split at characters that may stand in a line.
  return text.removesuffix('\n').split('\n')


def decode(raw: bytes, where: pathlib.Path | str) -> str:
  """The text of UTF-8 bytes that were read from `where`; a byte-order mark is dropped."""
  if other := _other_encoding(raw):
    said = f'{other[:6].upper()}, not UTF-8; save it as UTF-8, for instance with iconv -f {other}'
    fail(where, 1, f'{said} -t utf-8')
  try:
    text = raw.decode('utf-8-sig')
  except UnicodeDecodeError as error:
    line = raw[: error.start].count(b'\n') + 1
    fail(
      where,
      line,
      f'not UTF-8 (byte 0x{raw[error.start]:02x}); save it as UTF-8, for instance with '
      'iconv -f latin1 -t utf-8 (of a file from Windows: -f windows-1252)',
    )
  if '\0' in text:
    line = text[: text.index('\0')].count('\n') + 1
    fail(where, line, 'a NUL character, which no text has; the file is damaged, or not text')
  return text


# What a file begins with -> how iconv calls its encoding; the longer marks first.
_MARKS = {
  codecs.BOM_UTF32_LE: 'utf-32',
  codecs.BOM_UTF32_BE: 'utf-32',
  codecs.BOM_UTF16_LE: 'utf-16',
  codecs.BOM_UTF16_BE: 'utf-16',
}


def _other_encoding(raw: bytes) -> str | None:
  """What iconv calls the encoding of bytes that are UTF-16 or UTF-32; None for any other."""
  for mark, encoding in _MARKS.items():
    if raw.startswith(mark):
      return encoding
  even, odd = raw[::2].count(0), raw[1::2].count(0)
  # Without a mark: most letters are below U+0100, so that a half of each is 0.
  if max(even, odd) > len(raw) / 5:
    return 'utf-16le' if odd > even else 'utf-16be'
  return None


def _refuse_folder(path: pathlib.Path) -> None:
  if not os.path.isdir(path):
    return
  files = sorted(f.name for f in path.iterdir() if _suffix(f) in FORMATS)
  named = f'give one of its files: {", ".join(files[:5])}' if files else 'give a file'
  fail(
    path,
    None,
    f'a folder, expected a file; {named}, or hf:{path} for a folder in the form of the hub, or the '
    'name of a task and its folder',
  )


def _check_line(path: pathlib.Path, number: int, line: str) -> None:
  if len(line) > LONGEST:
    fail(
      path,
      number,
      f'a line of {len(line) / 1e6:.1f} million characters; it may have {LONGEST:,}. Line breaks '
      'may be lost: write one row a line, or leave this one out',
    )


def _suffix(path: pathlib.Path) -> str:
  return pathlib.Path(path.stem if path.suffix == '.gz' else path.name).suffix.lower()


def _tsv_lines(path: pathlib.Path, text: str) -> Iterator[tuple[int, list[str]]]:
  for number, line in enumerate(lines_of(text), 1):
    _check_line(path, number, line)
    yield number, line.removesuffix('\r').split('\t') if line.strip(' \r') else []


def _csv_lines(path: pathlib.Path, text: str) -> Iterator[tuple[int, list[str]]]:
  # Else 131,072 characters are the most of a field; there is but one limit for the whole process.
  csv.field_size_limit(max(csv.field_size_limit(), len(text)))
  reader = csv.reader(io.StringIO(text, newline=''), strict=True)
  while True:
    line = reader.line_num + 1
    try:
      fields = next(reader)
    except StopIteration:
      return
    except csv.Error as error:
      fail(path, line, f'bad CSV ({error}); quote the field, doubling quotes in it, or use JSONL')
    _check_line(path, line, max(fields, key=len, default=''))
    yield line, fields


def _header(path: pathlib.Path, header: tuple[int, list[str]] | None) -> tuple[str, ...]:
  if header is None:
    fail(path, None, 'the file is empty; it needs a line of column names and at least one row')
  line, fields = header
  names = tuple(name.strip() for name in fields)
  ours = '\t' if _suffix(path) == '.tsv' else ','
  for other, what in _SEPARATORS.items():
    if other != ours and len(names) == 1 and other in names[0]:
      fail(
        path,
        line,
        f'one column, {names[0]!r}: its columns are separated by {what}, and those of '
        f'{_suffix(path)} by {_SEPARATORS[ours]}. {_RESAVE[other]}',
      )
  if ours == '\t' and all(len(name) > 1 and name[0] == name[-1] == '"' for name in names):
    said = 'stand in quotes, which belong to a cell in .tsv; save it without them, or as CSV'
    fail(path, line, f'the names {", ".join(names)} {said}')
  for i, name in enumerate(names):
    if not name:
      remedy = 'If every line ends with a separator, delete these'
      if i == 0:
        remedy = 'If it is the index of pandas, write the file with to_csv(FILE, index=False)'
      said = f'column {i + 1} has no name; the first line must name every column'
      fail(path, line, f'{said}. {remedy}')
    if name in names[:i]:
      fail(path, line, f'two columns are named {name!r}; rename one of them')
  return names


def _filled(
  path: pathlib.Path, columns: tuple[str, ...], lines: Iterable[tuple[int, list[str]]]
) -> Iterator[TableRow]:
  for line, fields in lines:
    if not fields and len(columns) > 1:
      continue  # a blank line; with one column it is an empty cell
    fields = fields or ['']
    if len(fields) != len(columns):
      fail(
        path,
        line,
        f'{len(fields)} fields, but the first line names {len(columns)} columns '
        f'({", ".join(columns)}); a text with separators or line breaks needs quotes in CSV and '
        'cannot stand in TSV: use CSV or JSONL',
      )
    yield TableRow(line, dict(zip(columns, fields, strict=True)))


def _json_rows(path: pathlib.Path, text: str) -> Iterator[TableRow]:
  for number, line in enumerate(lines_of(text), 1):
    if not line.strip():
      continue
    _check_line(path, number, line)
    try:
      values = json.loads(line, object_pairs_hook=_pairs, parse_constant=_constant)
      json.dumps(values, ensure_ascii=False).encode('utf-8')
    except _TwiceError as error:
      fail(path, number, f'the name {error.args[0]!r} stands twice in one object; rename one')
    except json.JSONDecodeError as error:
      if number == 1 and line.lstrip().startswith('['):
        fail(path, number, _ONE_ARRAY)
      fail(
        path,
        number,
        f'bad JSON ({error.msg} at column {error.colno}); every line must be one object such as '
        '{"text": "...", "label": "..."}',
      )
    except UnicodeEncodeError as error:
      half = ascii(error.object[error.start])[1:-1]
      fail(path, number, f'{half} is half of a character; write both halves, or leave it out')
    except RecursionError:
      fail(path, number, 'JSON nested too deeply; every line must be one flat object')
    except ValueError as error:  # Python reads no number of thousands of digits
      fail(path, number, f'bad JSON ({error}); write a long number as text, in quotes')
    if isinstance(values, list) and number == 1:
      fail(path, number, _ONE_ARRAY)
    if not isinstance(values, dict):
      fail(path, number, f'a JSON {type(values).__name__}, expected one object a line')
    yield TableRow(number, values)


_ONE_ARRAY = (
  'a JSON list, expected one object a line; jq -c ".[]", or to_json(FILE, orient="records", '
  'lines=True) of pandas, writes that'
)


def _constant(name: str) -> float | None:
  """NaN, by which Python writes a value that is not there, as null; an infinity as it is."""
  return None if name == 'NaN' else float(name)


class _TwiceError(Exception):
  """A name that an object has twice."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  values: dict[str, Any] = {}
  for name, value in pairs:
    if name in values:
      raise _TwiceError(name)
    values[name] = value
  return values
