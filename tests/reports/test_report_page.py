"""The page: well-formed, self-contained, and safe whatever the data say."""

import html.parser
import re

import pytest

from prompt_jax.reports import columns, parts
from prompt_jax.reports.find import find
from prompt_jax.reports.page import page
from prompt_jax.reports.sections import sections
from prompt_jax.reports.write import write
from tests.reports import folders
from tests.shared import mentions

VOID = {'meta', 'img', 'br', 'wbr', 'link', 'input', 'hr'}
HOSTILE = '<script>alert(1)</script>"\'&amp;<img src=x onerror=alert(1)>'


class Reader(html.parser.HTMLParser):
  """Follows tags to the end; keeps text by the tag it stands in, and attributes."""

  def __init__(self, text: str):
    super().__init__()
    self.open: list[str] = []
    self.tags: list[tuple[str, dict[str, str | None]]] = []
    self.text = ''
    self.feed(text)
    self.close()
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
    self.tags.append((tag, dict(attrs)))
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] not in ('script', 'style'):
      self.text += data

  def count(self, tag: str) -> int:
    return sum(name == tag for name, _ in self.tags)


def made(root, *group_by: str) -> str:
  found = find([str(root)])
  table = columns.table(found.runs, columns.usual(found.runs))
  grouped = columns.grouped_table(found.runs, table.names, group_by) if group_by else None
  return page(found, table, grouped, sections(found, group_by)[0])


@pytest.fixture
def runs(tmp_path):
  folders.run(tmp_path / 'a')
  folders.seeds(tmp_path / 'b', [40.0, 60.0])
  folders.predictions(tmp_path / 'a', [
    {'input': 'the sky', 'target': 'red', 'prediction': 'green', 'correct': False,
     'scores': {'red': -3.0, 'green': -0.1}},
  ])  # fmt: skip
  folders.config(tmp_path / 'c')
  return tmp_path


def test_the_page_is_well_formed_and_needs_nothing_else(runs):
  text = made(runs, 'method')
  without_pictures = re.sub(r'"data:image/png;base64,[\w+/=]+"', '', text)
  assert not re.search(r'https?:|//\w|url\(|@import', without_pictures)
  found = Reader(text)
  assert found.count('script') == 1
  for tag, attributes in found.tags:
    assert 'src' not in attributes or attributes['src'].startswith('data:image/png;base64,')
    assert not attributes.get('href', '#').lstrip('#').count(':')
    if tag == 'img':
      assert attributes['alt']
  assert found.count('img') == 4  # loss, accuracy, by method, confusion
  assert found.count('link') == 0


def test_the_page_says_what_the_runs_are(runs):
  found = Reader(made(runs))
  assert mentions(found.text, '3 runs', '1 unfinished')
  for words in ('50.0 ± 14.1', '0 of 100', 'majority class', '1 answer', '1 wrong',
                'the sky', '94.8 %'):  # fmt: skip
    assert words in found.text


def test_every_link_leads_somewhere(runs):
  found = Reader(made(runs, 'method'))
  ids = [a['id'] for _, a in found.tags if 'id' in a]
  links = [a['href'][1:] for tag, a in found.tags if tag == 'a']
  assert sorted(ids) == sorted(links)
  assert len(set(ids)) == len(ids)


def test_cells_sort_by_their_numbers(runs):
  cells = [a for tag, a in Reader(made(runs)).tags if tag == 'td']
  assert {'50.0', '8.0', '54.0'} <= {a.get('data-value') for a in cells}
  assert any('data-empty' in a for a in cells)


@pytest.mark.parametrize(
  'hostile', [HOSTILE, '$title ${body} $$', '\x00\x1b[2J\u202e\ud800', '%s{0}']
)
def test_nothing_in_the_data_becomes_a_part_of_the_page(hostile, tmp_path):
  safe = hostile.replace('/', '|').replace('\x00', '').replace('\ud800', '')
  folders.run(tmp_path / 'runs' / safe, TASK=repr(hostile))
  place = tmp_path / 'runs' / safe
  scores = {hostile: 1.0, f'{hostile}/{hostile}': 2.0}
  folders.results(place, [scores], task=hostile)
  folders.prompt(place, base_model=safe, labels=[safe])
  wrong = {'input': hostile, 'target': hostile, 'prediction': hostile + '2', 'correct': False,
           'task': hostile, 'scores': {hostile: -2.0, hostile + '2': -1.0}}  # fmt: skip
  folders.predictions(place, [wrong])
  (tmp_path / 'runs' / f'{safe}2').mkdir()
  (tmp_path / 'runs' / f'{safe}2' / 'results.json').write_text('{')
  text = made(tmp_path / 'runs', 'model')
  found = Reader(text)
  assert found.count('script') == 1
  assert found.count('h1') == 1
  assert {'onerror', 'onclick', 'onload'}.isdisjoint(n for _, a in found.tags for n in a)
  assert all(c.isprintable() or c == '\n' for c in text)
  if hostile in (HOSTILE, '%s{0}'):
    assert hostile in found.text


def test_files_hold_the_same(runs, tmp_path):
  folders.run(runs / 'd')
  languages = {'mean': 50.0, 's.en/accuracy': 40.0, 's.de/accuracy': 60.0}
  folders.results(runs / 'd', [languages], task='s.en:all')
  found = find([str(runs)])
  table = columns.table(found.runs, columns.usual(found.runs))
  grouped = columns.grouped_table(found.runs, table.names, ['method'])
  out = tmp_path / 'report'
  files = write(out, found, table, grouped, sections(found)[0])
  assert [f.name for f in files] == ['report.html', 'report.md', 'runs.csv']
  assert {p.name for p in out.iterdir()} == {
    'report.html', 'report.md', 'runs.csv', 'parts.csv', 'groups.csv', 'pictures',
  }  # fmt: skip
  markdown = (out / 'report.md').read_text()
  linked = re.findall(r'\]\((pictures/[^)]+)\)', markdown)
  assert sorted(linked) == sorted(f'pictures/{p.name}' for p in (out / 'pictures').iterdir())
  assert len(linked) == Reader((out / 'report.html').read_text()).count('img')
  assert '| de | 60.0 | -20.0 |' in markdown
  assert len((out / 'parts.csv').read_text().splitlines()) == 1 + len(parts.parts(found.runs[3]))
