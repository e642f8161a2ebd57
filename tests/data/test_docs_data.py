"""docs/data.md says what the code says: its tables are true, and hold every message of the code."""

import ast
import inspect
import pathlib
import re

import pytest

from prompt_jax.data import columns, local_file, table
from prompt_jax.data.example import Lengths
from prompt_jax.data.local_file import local_inputs, local_task
from prompt_jax.data.vocabulary import ByteVocabulary, SentencePieceVocabulary
from prompt_jax.errors import UserError
from prompt_jax.evaluation import findings
from tests.data.conftest import trained_vocabulary

PAGE = pathlib.Path(__file__).parent.parent.parent / 'docs' / 'data.md'
LENGTHS = Lengths(64, 16)
MODULES = (table, columns, local_file)
# Of messages that the page leaves out: what they are about.
LEFT_OUT = {
  'cannot be read': 'what the operating system says',
  'million characters': 'a file of ten megabytes',
  'bad JSON ({error}); write a long number': 'a number of thousands of digits',
  'nested too deeply': 'a thousand brackets',
  'is half of a character': 'half of a surrogate pair',
  'look like free text': 'twenty rows',
  'has no answers': 'an empty list of right answers',
  'row has all of': 'a data set of the hub',
}


def rows(section):
  """(what, file, message) of the rows of a table, as they stand on the page."""
  text = PAGE.read_text(encoding='utf-8').partition(f'## {section}\n')[2].partition('\n## ')[0]
  found = [line.strip('| ').split(' | ') for line in text.split('\n') if line.startswith('| ')]
  return [tuple(row) for row in found if row[0] not in ('what', '---')]


REFUSED, WARNED, ALONE = rows('What is refused'), rows('What is warned of'), rows('Inputs alone')


def write(folder, cell):
  """The file of a cell such as "`a.tsv`: `text\\n` in utf-16"; its name, and how it is read."""
  name, content, encoding, splits, setting = re.fullmatch(
    r'`([^`]+)`(?:: `([^`]*)`)?(?: in ([\w-]+))?(?: as ([\w ]+?))?(?: with `(.+)`)?', cell
  ).groups()
  if name.endswith('/'):
    (folder / name).mkdir()
    (folder / name / 'train.tsv').write_text('')
  elif content is not None:
    text = re.sub(r'\\(?:n|t|0|x..)', lambda m: ast.literal_eval(f"'{m[0]}'"), content)
    (folder / name).write_bytes(text.encode(encoding or 'utf-8'))
  given = [setting.split('=')] if setting else []
  settings = {key: value.split(',') if key == 'labels' else value for key, value in given}
  return name.rstrip('/'), dict.fromkeys((splits or 'train').split(' and '), '') | settings


def loaded(name, settings, words):
  """The task of a file, and its examples."""
  task = local_task(**{'train': None, **{key: value or name for key, value in settings.items()}})
  return task, {split: task.load(split, words, LENGTHS) for split in task.splits}


@pytest.mark.parametrize(('what', 'cell', 'message'), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_refused(what, cell, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError) as refused:
    loaded(*write(tmp_path, cell), ByteVocabulary())
  assert f'`{refused.value}`' == message


@pytest.mark.parametrize(('what', 'cell', 'message'), WARNED, ids=[row[0] for row in WARNED])
def test_what_is_warned_of(what, cell, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  words = ByteVocabulary()
  if 'vocabulary' in message:
    words = SentencePieceVocabulary(trained_vocabulary(tmp_path))
  task, splits = loaded(*write(tmp_path, cell), words)
  assert [f'`{said}`' for said in findings.findings(task, splits, words, LENGTHS.targets)] == [
    message
  ]


@pytest.mark.parametrize(('what', 'cell', 'message'), ALONE, ids=[row[0] for row in ALONE])
def test_what_is_refused_of_inputs_alone(what, cell, message, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  name, _ = write(tmp_path, cell)
  with pytest.raises(UserError) as refused:
    local_inputs(name)
  assert f'`{refused.value}`' == message


def test_every_message_of_the_code_is_on_the_page(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  reached = set()
  for module in MODULES:

    def noting(*args, fail=table.fail, **kwargs):
      frame = inspect.currentframe().f_back
      reached.add((frame.f_globals['__name__'], frame.f_lineno))
      fail(*args, **kwargs)

    monkeypatch.setattr(module, 'fail', noting)
  for number, (_, cell, _) in enumerate(REFUSED):
    folder = tmp_path / str(number)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with pytest.raises(UserError):
      loaded(*write(folder, cell), ByteVocabulary())
  for _, cell, _ in ALONE:
    with pytest.raises(UserError):
      local_inputs(write(folder, cell)[0])
  unsaid = []
  for module in MODULES:
    source = inspect.getsource(module)
    for call in (n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)):
      if getattr(call.func, 'id', '') != 'fail':
        continue
      lines = range(call.lineno, call.end_lineno + 1)
      said = ast.unparse(call)
      if not reached & {(module.__name__, line) for line in lines}:
        unsaid.append(said)
  assert [said for said in unsaid if not any(words in said for words in LEFT_OUT)] == []
  # Nothing is excused that is on the page.
  assert {words for words in LEFT_OUT for said in unsaid if words in said} == set(LEFT_OUT)


def test_usual_names_are_on_the_page():
  text = PAGE.read_text(encoding='utf-8')
  names = columns.TEXT_NAMES + columns.INPUT_NAMES + columns.LABEL_NAMES + columns.TARGET_NAMES
  assert [name for name in names if f'`{name}`' not in text] == []
  assert [kind for kind in table.FORMATS if f'`{kind}`' not in text] == []
