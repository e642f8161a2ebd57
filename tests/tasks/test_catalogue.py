"""Every data set on rows as published: text, targets, metrics, names, faults."""

import gzip
import pathlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.data.example import Lengths
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from prompt_jax.evaluation import metrics
from prompt_jax.evaluation.evaluator import label_of
from prompt_jax.tasks import catalogue, find
from prompt_jax.tasks.formats import classify, reference
from tests.shared import facts
from tests.tasks.published import CASES

BYTES = ByteVocabulary()
LENGTHS = Lengths(500, 100)
EVERY = pytest.mark.parametrize('name', CASES)


def write(folder, case):
  for path, text in case.files.items():
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = text.encode()
    file.write_bytes(gzip.compress(raw) if path.endswith('.gz') else raw)


def full(name):
  variant = CASES[name].variant
  return f'{name}.{variant}' if variant else name


@EVERY
def test_published_files_become_examples(name, tmp_path):
  case = CASES[name]
  write(tmp_path, case)
  task = find.find(full(name), str(tmp_path))
  assert task.name == full(name)
  for split, (inputs, targets) in case.examples.items():
    first, *_ = task.load(split, BYTES, LENGTHS)
    assert (first.inputs_text, first.targets_text) == (inputs, targets)
    assert first.inputs.tolist() == [*BYTES.encode(inputs), 1]
    assert task.labels is None or task.labels[first.label] == targets
  again = find.find(full(name), str(tmp_path))
  for split in case.examples:
    one, two = (t.load(split, BYTES, LENGTHS) for t in (task, again))
    assert [e.inputs_text for e in one] == [e.inputs_text for e in two]
  bare = find.find(f'taskless_{full(name)}', str(tmp_path))
  split, (inputs, targets) = next(iter(case.examples.items()))
  named = catalogue.SETS[name].named
  (first, *_) = bare.load(split, BYTES, LENGTHS)
  assert first.inputs_text == (inputs.partition(' ')[2] if named else inputs)
  assert first.targets_text == targets


@EVERY
def test_right_and_wrong_predictions_are_told_apart(name, tmp_path):
  write(tmp_path, CASES[name])
  task = find.find(full(name), str(tmp_path))
  examples = task.load([*CASES[name].examples][-1], BYTES, LENGTHS)

  def score(texts):
    if task.labels:
      targets = [e.label for e in examples]
      values = [label_of(t, task.labels) for t in texts]
    else:
      targets = [e.fields.get('answers', e.targets_text) for e in examples]
      values = [task.postprocess(t) for t in texts]
    groups = [e.fields.get('group') for e in examples]
    return metrics.compute(task.metrics, targets, values, groups, len(task.labels or ()), BYTES)

  selects = metrics.scores_of(task.metrics)[0]
  right = score([e.targets_text for e in examples])
  wrong = score(['nothing of the sort'] * len(examples))
  assert right.keys() == wrong.keys()
  if 'corrcoef' in selects or selects in ('f1', 'f1_macro', 'bleu'):
    # One row has no correlation, no second class, and may have fewer than four words.
    assert right[selects] >= wrong[selects]
  else:
    assert right[selects] == pytest.approx(100)
    assert wrong[selects] < 50


def test_every_data_set_has_a_case_and_every_name_is_one():
  assert CASES.keys() == catalogue.SETS.keys()
  assert sum(map(len, catalogue.SUITES.values())) == len(catalogue.SETS)
  names = find.names()
  assert len(set(names)) == len(names)
  assert not any('.' in name or ':' in name for name in names)


def test_formats_find_the_columns_they_need():
  """A set of the general formats names a source for each column that its files call otherwise."""
  for name, found in catalogue.SETS.items():
    assert found.kind, name
    if found.files and name not in ('webnlg2017',):
      assert found.get or name.startswith('tatoeba'), f'{name} does not say where its files are'


@pytest.mark.parametrize(
  'name', [n for n, s in catalogue.SETS.items() if s.form.write in (classify, reference)]
)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_no_template_loses_a_column(name, data):
  form = catalogue.SETS[name].form
  names = [field for _, field, _, _ in string.Formatter().parse(form.template) if field]
  text = st.text(st.characters(codec='utf-8', exclude_characters='{}'), min_size=1)
  row = {field: data.draw(text) for field in names}
  row |= {'label': 0} if form.labels else {'references': ['r']}
  (example,) = form.examples(row)
  rest = example.inputs
  for field in names:  # in their order, each whole
    _, found, rest = rest.partition(row[field])
    assert found == row[field]
  for field in names:
    with pytest.raises(KeyError):
      form.examples({k: v for k, v in row.items() if k != field})
    with pytest.raises(ValueError, match='null'):
      form.examples({**row, field: None})


def test_without_files_one_line_says_how_to_get_them(tmp_path):
  for name, found in catalogue.SETS.items():
    if found.get:
      with pytest.raises(UserError) as error:
        find.find(full(name), str(tmp_path))
      assert '\n' not in str(error.value)
      assert found.get.split()[0] in str(error.value)
    if not found.tfds and not name.startswith(('glue', 'super_glue')):
      with pytest.raises(UserError, match='folder') as error:
        find.find(full(name))
      assert '\n' not in str(error.value)


def test_variants_are_named():
  with pytest.raises(UserError, match=facts('xnli', 'ar, bg', 'xnli.ar')):
    find.find('xnli', 'folder')
  with pytest.raises(UserError, match="'de'"):
    find.find('xnli.dee', 'folder')
  with pytest.raises(UserError, match=r'\.de'):
    find.find('trec.de', 'folder')


def test_sets_of_tensorflow_datasets_are_its_own():
  tfds = pytest.importorskip('tensorflow_datasets')
  known = set(tfds.list_builders(with_community_datasets=False))
  named = {n: s.tfds.split('/')[0].split(':')[0] for n, s in catalogue.SETS.items() if s.tfds}
  assert {n: b for n, b in named.items() if b not in known} == {}


def test_references_are_gathered_where_they_are_judged(tmp_path):
  for name, text in (('e2e', 'Two.'), ('dart', 'Two.'), ('webnlg', 'In Germany is Bonn.')):
    write(tmp_path, CASES[name])
    task = find.find(name, str(tmp_path))
    assert [e.targets_text for e in task.load('train', BYTES, LENGTHS)][1] == text
    (example,) = task.load('test', BYTES, LENGTHS)
    assert example.fields['answers'][1] == text


def test_the_documentation_lists_every_name_and_variant():
  text = (pathlib.Path(__file__).parent.parent.parent / 'docs' / 'tasks.md').read_text()
  missing = [name for name in find.names() if f'`{name}`' not in text]
  assert missing == []
  for name, found in catalogue.SETS.items():
    assert ', '.join(found.variants) in text, name
    starred = f'`{name}`*' in text
    assert starred == bool(found.tfds), name
