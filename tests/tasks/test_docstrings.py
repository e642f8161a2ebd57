"""The embedded tasks: prose alone, no duplicates, nothing shared between splits."""

import collections
import importlib.util
import itertools

import pytest

from prompt_jax.data.example import Lengths
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from prompt_jax.evaluation.findings import bag_of_words
from prompt_jax.tasks import docstrings

LENGTHS = Lengths(256, 16)


def load(task):
  return {split: task.load(split, ByteVocabulary(), LENGTHS) for split in task.splits}


@pytest.fixture(scope='module')
def iid():
  return load(docstrings.docstrings_iid())


@pytest.fixture(scope='module')
def files():
  return load(docstrings.docstrings_files())


def texts(examples):
  return [e.inputs_text.lower() for e in examples]


def test_no_text_is_in_two_places(iid, files):
  for splits in (iid, files):
    everything = list(itertools.chain.from_iterable(map(texts, splits.values())))
    assert len(everything) > 2000
    assert len(set(everything)) == len(everything)


def test_iid_is_capped_and_stratified(iid):
  total = collections.Counter(e.label for examples in iid.values() for e in examples)
  assert max(total.values()) <= docstrings.CAP
  assert sum(count == docstrings.CAP for count in total.values()) >= 3
  for split, share in (('train', 0.7), ('validation', 0.1), ('test', 0.2)):
    counts = collections.Counter(e.label for e in iid[split])
    for label, count in counts.items():
      assert abs(count - share * total[label]) <= 1.5


def test_files_are_held_out_whole(files):
  sets = [{e.fields['file'] for e in examples} for examples in files.values()]
  for one, other in itertools.combinations(sets, 2):
    assert not one & other
  sizes = {split: len(examples) for split, examples in files.items()}
  assert 0.15 < sizes['test'] / sum(sizes.values()) < 0.25


def test_every_label_is_learned_and_asked(iid, files):
  # Some systems leave tkinter out of their Python.
  missing = set() if importlib.util.find_spec('tkinter') else {'window'}
  for splits in (iid, files):
    for examples in splits.values():
      assert {e.targets_text for e in examples} == set(docstrings.LABELS) - missing
      assert all(docstrings.LABELS[e.label] == e.targets_text for e in examples)


def test_the_text_can_be_told_apart(iid):
  test = iid['test']
  (_, most), *_ = collections.Counter(e.label for e in test).most_common(1)
  assert most / len(test) < 0.2
  assert bag_of_words(iid['train'], test) > 0.6


def test_two_readings_are_the_same(iid):
  again = load(docstrings.docstrings_iid())
  for split, examples in iid.items():
    assert texts(again[split]) == texts(examples)


def test_labels_are_single_different_words():
  assert 8 <= len(set(docstrings.LABELS)) == len(docstrings.CHAPTERS) <= 13
  assert all(word.isalpha() for word in docstrings.LABELS)
  modules = ' '.join(chapter.modules for chapter in docstrings.CHAPTERS).split()
  assert len(set(modules)) == len(modules)


@pytest.mark.parametrize(
  ('docstring', 'prose'),
  [
    ('One line.', 'One line.'),
    ('\n    Two\n      lines.\n\n    ', 'Two lines.'),
    ('D.get(k[,d]) -> D[k] if k in D.\nReturns a value.', 'Returns a value.'),
    ('loads(s)\n\nReads JSON from a string.', 'Reads JSON from a string.'),
    ('First.\n\n>>> first()\n1\n\nSecond.', 'First. Second.'),
    ('x' * 199 + '.\n\nNot this.', 'x' * 199 + '.'),
    ('loads(s) -> object', ''),
    ('', ''),
  ],
)
def test_clean(docstring, prose):
  assert docstrings.clean(docstring) == prose


def write(folder, name, source):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(source)


def test_what_is_read_from_a_library(tmp_path):
  long = 'a sentence with more than forty characters in it.'
  write(tmp_path, 'json/__init__.py', f'"""Module: {long}"""\nraise SystemExit("imported")\n')
  write(tmp_path, 'json/tests/x.py', f'"""Test: {long}"""')
  write(tmp_path, 'unknown.py', f'"""Unknown: {long}"""')
  write(
    tmp_path,
    'queue.py',
    f'class A:\n  """Class: {long}"""\n  async def f(self):\n    "Method: {long}"\n\n'
    f'def g():\n  r"\\d {long}"\n\ndef h():\n  "Short."\n\ndef i():\n  "METHOD: {long}"\n',
  )
  write(tmp_path, 'socket.py', f'def g():\n  r"\\d {long}"\n')
  found = [(d.text.split()[0], d.file, d.line) for d in docstrings.read_docstrings(str(tmp_path))]
  assert found == [
    ('Class:', 'queue.py', 1),
    ('Method:', 'queue.py', 3),
    ('Module:', 'json/__init__.py', 1),
  ]


def test_a_library_without_sources(tmp_path):
  with pytest.raises(UserError, match='standard library'):
    docstrings.docstrings_iid(str(tmp_path)).load('train', ByteVocabulary(), LENGTHS)
