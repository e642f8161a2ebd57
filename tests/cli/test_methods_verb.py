"""`prompt-jax methods`, and the page that is made of it."""

import pathlib

import pytest

from prompt_jax.cli.main import main
from prompt_jax.cli.own_arguments import FORMATS
from prompt_jax.configuration.run_files import names
from prompt_jax.injections import READS, TASK
from tests.shared import mentions

PAGE = pathlib.Path(__file__).parent.parent.parent / 'docs' / 'methods.md'


def said(capsys, *flags, code=0):
  assert main(['methods', *flags]) == code
  out, err = capsys.readouterr()
  return err if code else out


@pytest.fixture
def rows(capsys):
  """The cells of each method by its name."""
  lines = said(capsys, '--markdown').splitlines()[2:]
  cells = [[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines]
  return {name.strip('`'): rest for name, *rest in cells}


def test_the_page_has_the_table(capsys):
  assert said(capsys, '--markdown') in PAGE.read_text(encoding='utf-8'), (
    'write the output of prompt-jax methods --markdown into docs/methods.md'
  )


def test_the_reference_has_every_method():
  """A file of a public class has a place in the API reference."""
  prompts = PAGE.parent.parent / 'prompt_jax' / 'prompts'
  page = (PAGE.parent / 'api' / 'prompts.md').read_text(encoding='utf-8').splitlines()
  for folder in ('methods', 'reparametrised'):
    for file in (prompts / folder).rglob('*.py'):
      if '\nclass ' in file.read_text(encoding='utf-8'):
        name = '.'.join(file.relative_to(prompts.parent.parent).with_suffix('').parts)
        assert f'.. automodule:: {name}' in page


def test_every_method_is_there_with_what_papers_count(rows):
  assert list(rows) == names('prompts')
  trains = {name: int(cells[1].replace(',', '')) for name, cells in rows.items()}
  assert trains['input'] == 100 * 768
  assert trains['adept'] == 76_051  # both as their papers have it for T5 base
  assert trains['mpt'] == 77_668
  assert trains['subspace'] == 500


def test_what_is_read_packed_and_exported(rows):
  for name, (about, _, adds, reads, packs, exports) in rows.items():
    read = set() if reads == '-' else set(reads.split())
    assert packs == ('no' if read & set(READS) or (read and 'keys' in adds) else 'yes'), name
    assert about, name
    assert set(exports.split()) <= set(FORMATS), name
    # A column of the data has no place in the question that an export is asked.
    columns = read - {*READS, TASK}
    assert ({'stablehlo', 'savedmodel'} <= set(exports.split())) == (not columns), name
    rows = adds == 'encoder rows' and packs == 'yes' and not columns
    assert ('hf' in exports.split()) == rows, name


def test_rows_go_into_every_format_of_export(rows):
  assert rows['input'][-1].split() == list(FORMATS)


def test_the_list_and_its_filter(capsys):
  out = said(capsys, '--filter', 'TASK_ID')
  listed = [line.split()[0] for line in out.splitlines() if line[:1].islower()]
  assert listed == ['control_prefixes', 'factored', 'mpt', 'task_prompts']
  assert mentions(said(capsys, '--filter', 'zzz', code=2), 'zzz')
