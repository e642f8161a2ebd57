"""seqio tasks and mixtures: the model's ids, the end kept, rates as published, own metrics."""

import collections
import functools
import sys
import textwrap

import numpy as np
import pytest

from prompt_jax.data.example import Example, Lengths
from prompt_jax.data.vocabulary import ByteVocabulary, SentencePieceVocabulary
from prompt_jax.errors import UserError
from tests.data.conftest import SENTENCES
from tests.shared import facts

seqio = pytest.importorskip('seqio')
tf = pytest.importorskip('tensorflow')
seqio_source = pytest.importorskip('prompt_jax.data.seqio_source')

LENGTHS = Lengths(12, 6)


def rows(n, prefix='text'):
  return [{'inputs': f'{prefix} {i} {SENTENCES[i % 6]}', 'targets': f't{i}'} for i in range(n)]


def source(splits):
  def dataset(split, shuffle_files=False, seed=None):
    return tf.data.Dataset.from_generator(
      functools.partial(iter, splits[split]),
      output_signature={
        name: tf.TensorSpec((), tf.string if isinstance(value, str) else tf.int32)
        for name, value in splits[split][0].items()
      },
    )

  return seqio.FunctionDataSource(dataset, splits=list(splits))


def hits(targets, predictions):
  return {'hits': sum(t == p for t, p in zip(targets, predictions, strict=True))}


def make(name, splits, eos='trim', **settings):
  """A task registered with a byte vocabulary, as a user would have one."""
  vocabulary = seqio.ByteVocabulary()
  append = {
    'trim': [seqio.preprocessors.append_eos_after_trim],
    'before': [seqio.preprocessors.append_eos],
    'none': [],
  }[eos]
  return seqio.Task(
    name,
    source=source(splits),
    preprocessors=[seqio.preprocessors.tokenize, *append],
    output_features={n: seqio.Feature(vocabulary) for n in ('inputs', 'targets')},
    **settings,
  )


def register(task):
  registry = seqio.MixtureRegistry if isinstance(task, seqio.Mixture) else seqio.TaskRegistry
  registry.add_provider(task.name, task)


@pytest.fixture(scope='module', autouse=True)
def registered():
  def upper(text, example=None, is_target=False):
    return example['targets_pretokenized'].upper() if is_target else text.upper()

  splits = {'train': rows(5), 'validation': rows(3, 'other')}
  small = make('pj_small', splits, metric_fns=[hits], postprocess_fn=upper)
  large = make('pj_large', {'train': rows(20)}, metric_fns=[hits], postprocess_fn=upper)
  unused = make('pj_unused', {'train': rows(2), 'validation': rows(2)})
  for task in (small, large, unused):
    register(task)
  inner = seqio.Mixture('pj_inner', [('pj_large', 2.0), ('pj_unused', 0.0)])
  register(inner)
  register(seqio.Mixture('pj_mixture', [('pj_small', 1.0), ('pj_inner', 3.0)]))
  yield
  for name in ('pj_small', 'pj_large', 'pj_unused'):
    seqio.TaskRegistry.remove(name)
  for name in ('pj_inner', 'pj_mixture'):
    seqio.MixtureRegistry.remove(name)


@pytest.mark.parametrize('kind', ['bytes', 'sentencepiece'])
def test_ids_are_the_models(kind, vocabulary):
  ours = ByteVocabulary() if kind == 'bytes' else vocabulary
  examples = seqio_source.seqio_task('pj_small').load('train', ours, Lengths(200, 6))
  assert [e.inputs_text for e in examples] == [row['inputs'] for row in rows(5)]
  for example in examples:
    assert example.inputs.dtype == example.targets.dtype == np.int32
    assert example.inputs.tolist() == [*ours.encode(example.inputs_text), 1]
    assert example.targets.tolist() == [*ours.encode(example.targets_text), 1]
    assert example.task == 'pj_small'


def test_the_registered_task_keeps_its_vocabulary(vocabulary):
  seqio_source.seqio_task('pj_small').load('train', vocabulary, LENGTHS)
  feature = seqio.TaskRegistry.get('pj_small').output_features['inputs']
  assert isinstance(feature.vocabulary, seqio.ByteVocabulary)


@pytest.mark.parametrize('eos', ['trim', 'before', 'none'])
def test_truncation_keeps_the_end_wherever_seqio_put_it(eos):
  task = make(f'pj_{eos}', {'train': rows(3)}, eos)
  vocabulary = ByteVocabulary()
  task = seqio_source.with_vocabulary(task, seqio_source.seqio_vocabulary(vocabulary))
  for example in seqio_source.read(task, 'train', vocabulary, LENGTHS):
    whole = vocabulary.encode(example.inputs_text)
    assert len(whole) > LENGTHS.inputs
    assert example.inputs.tolist() == [*whole[: LENGTHS.inputs - 1], 1]
    assert example.targets.tolist() == [*vocabulary.encode(example.targets_text), 1]


def test_mixtures_keep_their_rates_and_leave_no_example_out():
  examples = seqio_source.seqio_task('pj_mixture').load('train', ByteVocabulary(), LENGTHS)
  counts = collections.Counter(e.task for e in examples)
  # A unit of rate stands for 20 / 3 examples; the small task has 5, so two of them come twice.
  assert counts == {'pj_large': 20, 'pj_small': 7}
  texts = collections.Counter(e.inputs_text for e in examples if e.task == 'pj_small')
  assert len(texts) == 5
  assert set(texts.values()) == {1, 2}
  assert len({e.inputs_text for e in examples if e.task == 'pj_large'}) == 20


def test_other_splits_of_a_mixture_hold_all_examples_once():
  examples = seqio_source.seqio_task('pj_mixture').load('validation', ByteVocabulary(), LENGTHS)
  assert collections.Counter(e.task for e in examples) == {'pj_small': 3, 'pj_unused': 2}


def test_mixing():
  parts = [
    [Example(np.ones(1), np.ones(1), str(i), '', None, {}, t) for i in range(n)]
    for t, n in (('a', 100), ('b', 3), ('c', 10))
  ]
  counts = collections.Counter(e.task for e in seqio_source.mix(parts, [1.0, 0.5, 0.0], 0))
  assert counts == {'a': 100, 'b': 50}
  once = collections.Counter(e.inputs_text for e in seqio_source.mix(parts[1:2], [9.0], 0))
  assert once == {'0': 1, '1': 1, '2': 1}
  assert seqio_source.mix([[], []], [1.0, 1.0], 0) == []


def test_limit():
  task = seqio_source.seqio_task('pj_large', limit=4)
  assert [e.inputs_text for e in task.load('train', ByteVocabulary(), LENGTHS)] == [
    row['inputs'] for row in rows(4)
  ]


def test_own_postprocessing_and_metrics():
  task = seqio_source.seqio_task('pj_small')
  examples = task.load('validation', ByteVocabulary(), LENGTHS)
  assert task.score(examples, ['T0', 't1', 'no']) == {'hits': 2.0}
  mixed = seqio_source.seqio_task('pj_mixture')
  both = [
    *examples[:1],
    *seqio_source.seqio_task('pj_large').load('train', ByteVocabulary(), LENGTHS),
  ]
  scores = mixed.score(both, ['t0'] * len(both))
  assert scores == {'pj_small/hits': 1.0, 'pj_large/hits': 1.0}


@pytest.mark.parametrize('value', [2, 2.0, np.float32(2), seqio.metrics.Scalar(2)])
def test_values_of_metrics_are_numbers_or_left_out(value):
  def metric(targets, predictions):
    return {'hits': value, 'note': seqio.metrics.Text('some text')}

  register(make('pj_values', {'validation': rows(3)}, metric_fns=[metric]))
  task = seqio_source.seqio_task('pj_values')
  examples = task.load('validation', ByteVocabulary(), LENGTHS)
  with pytest.warns(UserWarning, match=facts('pj_values', "'note'", 'Text')):
    assert task.score(examples, ['a'] * 3) == {'hits': 2.0}
  assert task.score(examples, ['a'] * 3) == {'hits': 2.0}  # without another warning
  seqio.TaskRegistry.remove('pj_values')


@pytest.mark.parametrize(
  ('found', 'words'),
  [
    ({'hits': [1, 2]}, ("'hits'", 'list')),
    ({'hits': None}, ("'hits'", 'NoneType')),
    ([0.5], ('list', 'mapping')),
    (0.5, ('float', 'mapping')),
    (None, ('NoneType', 'mapping')),
  ],
)
def test_what_is_no_value_of_a_metric_is_refused(found, words):
  def metric(targets, predictions):
    return found

  register(make('pj_odd', {'validation': rows(2)}, metric_fns=[metric]))
  task = seqio_source.seqio_task('pj_odd')
  examples = task.load('validation', ByteVocabulary(), LENGTHS)
  with pytest.raises(UserError, match=facts('metric', "'pj_odd'", *words)):
    task.score(examples, ['a'] * 2)
  seqio.TaskRegistry.remove('pj_odd')


@pytest.mark.parametrize('what', ['metric', 'postprocessing'])
def test_code_of_a_task_that_fails_is_named(what):
  def metric(targets, predictions):
    return {'share': 1 / int(what != 'metric')}

  def process(text, **_):
    return 1 / int(what == 'metric')

  task = make('pj_fails', {'validation': rows(2)}, metric_fns=[metric], postprocess_fn=process)
  register(task)
  task = seqio_source.seqio_task('pj_fails')
  examples = task.load('validation', ByteVocabulary(), LENGTHS)
  with pytest.raises(UserError, match=facts(what, "'pj_fails'", 'ZeroDivisionError')) as e:
    task.score(examples, ['a'] * 2)
  assert isinstance(e.value.__cause__, ZeroDivisionError)
  seqio.TaskRegistry.remove('pj_fails')


def test_metrics_that_read_no_predictions_are_refused_or_named():
  def by_score(targets, scores):
    return {'mean_score': 0.0}

  def by_aux(targets, predictions, aux_values):
    return {'aux': 0.0}

  def by_nothing(answers):
    return {}

  class Own(seqio.metrics.Metric):
    pass

  for name, settings, said in (
    ('pj_score', {'metric_fns': [by_score]}, 'by_score'),
    ('pj_aux', {'metric_fns': [by_aux]}, 'by_aux'),
    ('pj_object', {'metric_objs': [Own]}, 'Own'),
    ('pj_nothing', {'metric_fns': [by_nothing]}, 'answers'),
  ):
    register(make(name, {'validation': rows(2)}, **settings))
    with pytest.raises(UserError, match=facts(name, said)):
      seqio_source.seqio_task(name)
    seqio.TaskRegistry.remove(name)
  several = {'metric_fns': [hits, by_score, by_aux], 'metric_objs': [Own]}
  register(make('pj_several', {'validation': rows(2)}, **several))
  with pytest.warns(UserWarning, match=facts('pj_several', 'by_score, by_aux, Own')):
    task = seqio_source.seqio_task('pj_several')
  examples = task.load('validation', ByteVocabulary(), LENGTHS)
  assert task.score(examples, ['t0', 'x']) == {'hits': 1.0}
  seqio.TaskRegistry.remove('pj_several')


def test_a_feature_without_an_end_gets_none():
  vocabulary = ByteVocabulary()
  features = {
    'inputs': seqio.Feature(seqio.ByteVocabulary(), add_eos=False),
    'targets': seqio.Feature(seqio.ByteVocabulary()),
  }
  steps = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos_after_trim]
  task = seqio.Task('pj_open', source({'train': rows(1)}), features, steps)
  for length in (8, 200):
    (example,) = seqio_source.read(task, 'train', vocabulary, Lengths(length, 6))
    assert example.inputs.tolist() == vocabulary.encode(rows(1)[0]['inputs'])[:length]
    assert example.targets.tolist() == [*vocabulary.encode('t0'), 1]


def test_byt5_masks_with_its_last_bytes():
  theirs = seqio_source.seqio_vocabulary(ByteVocabulary())
  assert theirs.vocab_size - 1 == ByteVocabulary().sentinels[0] == 258


def test_span_corruption_uses_the_models_sentinels(vocabulary):
  def corrupt(dataset):
    # Stands for any preprocessor that asks the features for their vocabulary.
    return dataset

  def sentinel(dataset, output_features):
    last = output_features['inputs'].vocabulary.vocab_size - 1
    return dataset.map(lambda x: {**x, 'targets': tf.concat([[last], x['targets']], 0)})

  task = seqio.Task(
    'pj_span',
    source=source({'train': rows(1)}),
    preprocessors=[corrupt, seqio.preprocessors.tokenize, sentinel],
    output_features={n: seqio.Feature(seqio.ByteVocabulary()) for n in ('inputs', 'targets')},
  )
  task = seqio_source.with_vocabulary(task, seqio_source.seqio_vocabulary(vocabulary))
  (example,) = seqio_source.read(task, 'train', vocabulary, Lengths(20, 20))
  assert example.targets[0] == vocabulary.size - 1


def test_a_users_module(tmp_path, monkeypatch):
  module = """
    import seqio
    import tensorflow as tf

    seqio.TaskRegistry.add(
      'pj_mine',
      source=seqio.FunctionDataSource(
        lambda split, shuffle_files=False, seed=None: tf.data.Dataset.from_tensors(
          {'inputs': 'in', 'targets': 'out'}
        ),
        splits=['train'],
      ),
      preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
      output_features={
        n: seqio.Feature(seqio.ByteVocabulary()) for n in ('inputs', 'targets')
      },
    )
  """
  (tmp_path / 'pj_my_tasks.py').write_text(textwrap.dedent(module))
  monkeypatch.syspath_prepend(tmp_path)
  task = seqio_source.seqio_task('pj_mine', ['pj_my_tasks'])
  (example,) = task.load('train', ByteVocabulary(), LENGTHS)
  assert (example.inputs_text, example.targets_text) == ('in', 'out')
  assert task.score is None
  seqio.TaskRegistry.remove('pj_mine')
  sys.modules.pop('pj_my_tasks')


def test_faults(vocabulary, tmp_path, monkeypatch):
  with pytest.raises(UserError, match=facts('no_such_module', 'PYTHONPATH')):
    seqio_source.seqio_task('x', ['no_such_module'])
  (tmp_path / 'pj_failing.py').write_text('1 / 0')
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(UserError, match=facts('pj_failing', 'ZeroDivisionError')):
    seqio_source.seqio_task('x', ['pj_failing'])
  with pytest.raises(UserError, match=facts("'pj_small'", 'module')):
    seqio_source.seqio_task('pj_smal')

  def broken(dataset):
    raise RuntimeError('no disk')

  features = {n: seqio.Feature(seqio.ByteVocabulary()) for n in ('inputs', 'targets')}
  task = seqio.Task('pj_broken', source({'train': rows(1)}), features, [broken])
  with pytest.raises(UserError, match=facts("'train'", 'RuntimeError: no disk')):
    seqio_source.read(task, 'train', ByteVocabulary(), LENGTHS)
  only = {'targets': features['targets']}
  task = seqio.Task('pj_lm', source({'train': rows(1)}), only, [seqio.preprocessors.tokenize])
  with pytest.raises(UserError, match=facts('inputs', 'targets')):
    seqio_source.read(task, 'train', ByteVocabulary(), LENGTHS)


def test_vocabularies_are_equal_in_seqios_sense(vocabulary_file):
  ours = SentencePieceVocabulary(vocabulary_file, 7)
  one, two = seqio_source.seqio_vocabulary(ours), seqio_source.seqio_vocabulary(ours)
  assert one == two
  assert one.vocab_size == ours.size
