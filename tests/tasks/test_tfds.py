"""GLUE and SuperGLUE as seqio tasks, on rows as tensorflow-datasets gives them."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

from prompt_jax.data.example import Lengths
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import install
from prompt_jax.tasks import glue, super_glue
from tests.tasks.test_formats import GLUE, SUPER_GLUE

seqio = pytest.importorskip('seqio')
tf = pytest.importorskip('tensorflow')
tfds = pytest.importorskip('prompt_jax.tasks.tfds')
seqio_source = pytest.importorskip('prompt_jax.data.seqio_source')

LENGTHS = Lengths(200, 20)
BYTES = ByteVocabulary()


def tensors(value):
  if isinstance(value, dict):
    return {name: tensors(part) for name, part in value.items()}
  return tf.constant(value, tf.int64) if isinstance(value, int) else tf.constant(value)


def source(*rows):
  """The rows with the types of tensorflow-datasets: int64 labels, nested indices, ragged lists."""

  def dataset(split, shuffle_files=False, seed=None):
    parts = [tf.data.Dataset.from_tensors(tensors(row)) for row in rows]
    joined = parts[0]
    for part in parts[1:]:
      joined = joined.concatenate(part)
    return joined

  return seqio.FunctionDataSource(dataset, splits=['train', 'validation', 'test'])


@pytest.mark.parametrize(
  ('suite', 'name'), [*((glue, n) for n in GLUE), *((super_glue, n) for n in SUPER_GLUE)]
)
@pytest.mark.parametrize('taskless', [False, True])
def test_rows_become_examples(suite, name, taskless):
  row, inputs, targets = (GLUE if suite is glue else SUPER_GLUE)[name]
  found = suite._source(name, '1.0.0')
  built = tfds.seqio_task(found, seqio_source.seqio_vocabulary(BYTES), taskless, source(row))
  assert built.name == ('taskless_' if taskless else '') + found.name
  (example,) = seqio_source.read(built, 'train', BYTES, LENGTHS)
  assert example.inputs_text == (inputs.split(' ', 1)[1] if taskless else inputs)
  assert example.targets_text == targets
  assert example.inputs.tolist() == [*BYTES.encode(example.inputs_text), 1]
  assert example.targets.tolist() == [*BYTES.encode(targets), 1]
  labels = found.form.labels
  assert example.label == (labels.index(targets) if labels and targets != '<unk>' else None)
  # Fields that mean something to a metric are there only where the data set has them.
  (direct,) = found.form.examples(row)
  for field in ('answers', 'group', 'right'):
    assert example.fields.get(field) == direct.fields.get(field)


def test_several_answers_groups_and_rows_left_out():
  row, _, _ = SUPER_GLUE['record']
  both = {**row, 'answers': ['Bob', 'Änn']}
  found = super_glue._source('record', '1.0.2')
  built = tfds.seqio_task(found, seqio.ByteVocabulary(), False, source(both))
  first, second = seqio_source.read(built, 'train', BYTES, LENGTHS)
  assert (first.targets_text, second.targets_text) == ('Bob', 'Änn')
  assert first.fields['answers'] == second.fields['answers'] == ['Bob', 'Änn']
  assert first.fields['group'] == '1/2'
  row, _, _ = SUPER_GLUE['wsc']
  found = super_glue._source('wsc_train', '1.0.2')
  built = tfds.seqio_task(
    found, seqio.ByteVocabulary(), False, source(row, {**row, 'label': 1}, row)
  )
  assert len(seqio_source.read(built, 'train', BYTES, LENGTHS)) == 1


def test_wsc_is_scored_by_its_candidates():
  row, _, _ = SUPER_GLUE['wsc']
  found = super_glue._source('wsc', '1.0.2')
  rows = source(row, {**row, 'label': 1})
  built = tfds.seqio_task(found, seqio.ByteVocabulary(), False, rows)
  examples = seqio_source.read(built, 'validation', BYTES, LENGTHS)
  task = super_glue.super_glue_task('wsc')
  right = lambda texts: [task.right(e, t) for e, t in zip(examples, texts, strict=True)]
  assert right(['Tom', 'Tom']) == [False, True]
  assert right(['Mitchell', 'the Tom']) == [True, True]


def test_tasks_for_a_vocabulary_are_named_after_data_and_version():
  names = [t.name for t in glue.seqio_tasks(seqio.ByteVocabulary(), '1.0.0')]
  assert len(set(names)) == len(names) == 2 * len(glue.FORMATS)
  assert {'glue_cola_v100', 'taskless_glue_cola_v100'} <= set(names)
  names = [t.name for t in super_glue.seqio_tasks(seqio.ByteVocabulary())]
  assert 'taskless_super_glue_wsc_train_v102' in names
  built = glue.seqio_tasks(seqio.ByteVocabulary())[0]
  assert 'glue/cola:2.0.0' in str(built.source)


@pytest.mark.parametrize('suite', [glue, super_glue])
@pytest.mark.parametrize('taskless', [False, True])
def test_mixtures_are_proportional_and_taskless_where_they_say_so(suite, taskless):
  mixture = suite.seqio_mixture(seqio.ByteVocabulary(), taskless)
  assert len(mixture.tasks) == len(suite.SIZES)
  assert all(t.name.startswith('taskless_') == taskless for t in mixture.tasks)
  rates = sorted(mixture.get_rate(t) for t in mixture.tasks)
  np.testing.assert_array_equal(rates, sorted(suite.SIZES.values()))


def test_describing_tasks_needs_neither_tensorflow_nor_seqio():
  code = """
    import sys

    class Blocker:
      def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('tensorflow', 'tensorflow_text', 'tensorflow_datasets', 'seqio'):
          raise ImportError(f'{name} is not installed here')

    sys.meta_path.insert(0, Blocker())
    from prompt_jax.data.example import Lengths
    from prompt_jax.data.vocabulary import ByteVocabulary
    from prompt_jax.errors import UserError
    from prompt_jax.tasks import find

    print(find.find('super_glue_rte').labels)
    print(len(find.find('docstrings_iid').load('test', ByteVocabulary(), Lengths(64, 16))) > 100)
    for make in (
      lambda: find.find('mine', modules=['my_tasks']),
      lambda: find.find('glue_rte').load('test', ByteVocabulary(), Lengths(64, 16)),
    ):
      try:
        make()
      except UserError as error:
        print(error)
  """
  run = subprocess.run(
    [sys.executable, '-c', textwrap.dedent(code)], capture_output=True, text=True, check=False
  )
  assert run.returncode == 0, run.stderr
  assert run.stdout.splitlines() == [
    "('entailment', 'not_entailment')",
    'True',
    *(
      f"The task '{name}' needs seqio (seqio is not installed here). Install it, "
      + install('seqio')
      for name in ('mine', 'glue_rte')
    ),
  ]
