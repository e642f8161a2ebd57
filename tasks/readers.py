"""The file formats in which data sets were published, read as rows.

A reader takes a path and the split's name and gives each row with the place it stands at, for
messages. Whatever is wrong with a file is a UserError that names the file and the place.
"""

import gzip
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from xml.etree import ElementTree

from prompt_jax.data.table import decode, fail, read_table, read_text
from prompt_jax.errors import UserError


class LocatedRow(NamedTuple):
  """A row and where it stands: "train.tsv:12", "dev.json, question 57"."""

  where: str
  values: dict[str, Any]


Reader = Callable[[pathlib.Path, str], Iterator[LocatedRow]]


def table(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """TSV or CSV with a line of column names, or JSON Lines; each also gzipped."""
  for row in read_table(path).rows:
    yield LocatedRow(f'{path}:{row.line}', row.values)


def tsv(*columns: str) -> Reader:
  """TSV without a line of column names."""

  def read(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
    for number, line in _lines(path):
      fields = line.split('\t')
      if len(fields) != len(columns):
        fail(path, number, f'{len(fields)} fields; expected {", ".join(columns)}')
      yield LocatedRow(f'{path}:{number}', dict(zip(columns, fields, strict=True)))

  return read


def json_array(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """One JSON array of objects."""
  found = _json(path)
  if not isinstance(found, list):
    fail(path, None, f'a JSON {type(found).__name__}; expected an array of objects')
  for number, values in enumerate(found, 1):
    where = f'{path}, entry {number}'
    if not isinstance(values, dict):
      raise UserError(f'{where}: a JSON {type(values).__name__}, expected an object')
    yield LocatedRow(where, values)


def squad(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """SQuAD 1.1: articles of paragraphs of questions. Columns id, question, context, answers."""
  try:
    for article in _json(path)['data']:
      for paragraph in article['paragraphs']:
        for qa in paragraph['qas']:
          answers = [a['text'] for a in qa['answers']]
          values = {'id': qa['id'], 'question': qa['question'], 'context': paragraph['context']}
          yield LocatedRow(f'{path}, question {qa["id"]}', {**values, 'answers': answers})
  except (KeyError, TypeError) as error:
    fail(path, None, f'not in the format of SQuAD 1.1 ({error!r})')


def mrqa(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """MRQA 2019: a line of JSON each paragraph, after one that names the data set."""
  for row in read_table(path).rows:
    if 'header' in row.values:
      continue
    try:
      for qa in row.values['qas']:
        values = {'id': qa['qid'], 'question': qa['question'], 'answers': qa['answers']}
        yield LocatedRow(f'{path}:{row.line}', {**values, 'context': row.values['context']})
    except (KeyError, TypeError) as error:
      fail(path, row.line, f'not in the format of MRQA ({error!r})')


def wikiann(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """A token and its IOB2 tag a line ("de:Berlin\\tB-LOC"), an empty line after each sentence."""
  tokens: list[str] = []
  tags: list[str] = []
  start = 1
  for number, line in enumerate([*read_text(path).split('\n'), ''], 1):
    if line.strip():
      token, tab, tag = line.rstrip('\r').rpartition('\t')
      if not tab or not re.fullmatch(r'O|[BI]-\w+', tag):
        fail(path, number, f'{line[:60]!r} is no token, tab and tag such as B-LOC')
      tokens.append(token.partition(':')[2] or token)
      tags.append(tag)
    else:
      if tokens:
        yield LocatedRow(f'{path}:{start}', {'tokens': tokens, 'tags': tags})
      tokens, tags, start = [], [], number + 1


def webnlg(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """WebNLG's XML, a file or a folder of them; in training an example for each text."""
  files = sorted(path.rglob('*.xml')) if path.is_dir() else [path]
  for file in files:
    try:
      root = ElementTree.fromstring(file.read_bytes())
    except ElementTree.ParseError as error:
      fail(file, error.position[0], f'bad XML ({error})')
    for entry in root.iter('entry'):
      triples = [t.text or '' for t in entry.iterfind('modifiedtripleset/mtriple')]
      # From 2020 on there are Russian texts as well, marked by their language.
      texts = [e.text.strip() for e in entry.iterfind('lex') if e.text and e.get('lang') != 'ru']
      where = f'{file}, entry {entry.get("eid")} of {entry.get("category")}'
      for references in texts if split == 'train' else [texts]:
        yield LocatedRow(where, {'triples': triples, 'references': references})


def dart(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """DART: sets of triples and their texts; in training an example for each text."""
  for row in json_array(path, split):
    try:
      texts = [annotation['text'] for annotation in row.values['annotations']]
      triples = row.values['tripleset']
    except (KeyError, TypeError) as error:
      raise UserError(f'{row.where}: not in the format of DART ({error!r})') from error
    for references in texts if split == 'train' else [texts]:
      yield LocatedRow(row.where, {'triples': triples, 'references': references})


def dialogsum(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """DialogSum: one summary, or summary1, summary2, summary3 in the test split."""
  for row in table(path, split):
    names = ('summary', 'summary1', 'summary2', 'summary3')
    texts = [row.values[name] for name in names if name in row.values]
    yield LocatedRow(row.where, {**row.values, 'references': texts})


def pronouns(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """Definite pronouns: sentence, pronoun, "candidate,candidate" and the right one, a line each."""
  block: list[str] = []
  for number, line in _lines(path):
    block.append(line.strip())
    if len(block) == 4:
      sentence, pronoun, candidates, right = block
      first = number - 3
      options = [c.strip() for c in candidates.split(',')]
      if len(options) != 2 or right not in options:
        fail(path, first, f'the answer {right!r} is not one of two candidates {candidates!r}')
      values = {'sentence': sentence, 'pronoun': pronoun, 'candidates': options}
      yield LocatedRow(f'{path}:{first}', {**values, 'label': options.index(right)})
      block = []
  if block:
    fail(path, None, 'the last sentence lacks some of its four lines')


def parallel(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """A text a line, and what belongs to it in the same line of the file of targets.

  The path is "train.en>train.de": both names, in one folder.
  """
  first, _, second = path.name.partition('>')
  source, target = path.with_name(first), path.with_name(second)
  texts = [read_text(file).removesuffix('\n').split('\n') for file in (source, target)]
  if len(texts[0]) != len(texts[1]):
    fail(target, None, f'{len(texts[1])} lines, but {source} has {len(texts[0])}')
  for number, (one, two) in enumerate(zip(*texts, strict=True), 1):
    if one.strip() and two.strip():
      yield LocatedRow(f'{source}:{number}', {'source': one.strip(), 'references': two.strip()})


def xsum(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """XSum: ids of the splits in one JSON file, a .summary file each in bbc-summary-data."""
  ids = _json(path)
  if not isinstance(ids, dict) or split not in ids:
    fail(path, None, f'no list of ids named {split!r}')
  for number in ids[split]:
    file = path.parent / 'bbc-summary-data' / f'{number}.summary'
    if not file.is_file():
      continue  # Pages that are gone from the web; so it is in every copy of the set.
    parts = dict(re.findall(r'\[SN\]([A-Z-]+)\[SN\]\n(.*?)(?=\n\[SN\]|\Z)', read_text(file), re.S))
    if not {'FIRST-SENTENCE', 'RESTBODY'} <= parts.keys():
      fail(file, None, 'no [SN]FIRST-SENTENCE[SN] or [SN]RESTBODY[SN]')
    document = ' '.join(parts['RESTBODY'].split())
    yield LocatedRow(
      str(file), {'document': document, 'references': parts['FIRST-SENTENCE'].strip()}
    )


def stories(path: pathlib.Path, split: str) -> Iterator[LocatedRow]:
  """CNN/DailyMail: a list of addresses; each story is named by the SHA-1 of its address."""
  for number, url in _lines(path):
    name = f'{hashlib.sha1(url.strip().encode()).hexdigest()}.story'
    places = [path.parent / publisher / 'stories' / name for publisher in ('cnn', 'dailymail')]
    file = next((p for p in places if p.is_file()), None)
    if file is None:
      fail(path, number, f'there is no {places[0]} nor {places[1]}')
    article, *highlights = read_text(file).split('@highlight')
    document = ' '.join(article.split())
    points = '\n'.join(' '.join(h.split()) for h in highlights)
    if document and points:  # some hundred stories are empty
      yield LocatedRow(str(file), {'document': document, 'references': points})


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
  """The lines that are not empty, numbered from 1."""
  for number, line in enumerate(read_text(path).split('\n'), 1):
    if line.strip():
      yield number, line.removesuffix('\r')


def _json(path: pathlib.Path) -> Any:
  if not path.is_file():
    fail(path, None, 'there is no such file')
  raw = path.read_bytes()
  try:
    return json.loads(decode(gzip.decompress(raw) if path.suffix == '.gz' else raw, path))
  except json.JSONDecodeError as error:
    fail(path, error.lineno, f'bad JSON ({error.msg} at column {error.colno})')
  except RecursionError:
    fail(path, None, 'JSON nested too deeply')
  except (gzip.BadGzipFile, EOFError) as error:
    fail(path, None, f'not a whole gzip file ({error})')
