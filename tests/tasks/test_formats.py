"""T5's text formats, row by row, with the column names of tensorflow-datasets."""

import numpy as np
import pytest

from prompt_jax.data.example import Example
from prompt_jax.tasks import formats, glue, super_glue
from tests.shared import facts

PAIR = {'sentence1': 'One.', 'sentence2': 'Two.'}
NLI = {'premise': 'P.', 'hypothesis': 'H.'}
GLUE = {
  'cola': ({'sentence': 'S.', 'label': 1}, 'cola sentence: S.', 'acceptable'),
  'sst2': ({'sentence': 'S.', 'label': 0}, 'sst2 sentence: S.', 'negative'),
  'mrpc': ({**PAIR, 'label': 1}, 'mrpc sentence1: One. sentence2: Two.', 'equivalent'),
  'qqp': (
    {'question1': 'A?', 'question2': 'B?', 'label': 0},
    'qqp question1: A? question2: B?',
    'not_duplicate',
  ),
  'stsb': (
    {**PAIR, 'label': np.float32(3.25)},
    'stsb sentence1: One. sentence2: Two.',
    '3.2',
  ),
  'mnli': ({**NLI, 'label': 1}, 'mnli hypothesis: H. premise: P.', 'neutral'),
  'mnli_matched': ({**NLI, 'label': 0}, 'mnli hypothesis: H. premise: P.', 'entailment'),
  'mnli_mismatched': ({**NLI, 'label': 2}, 'mnli hypothesis: H. premise: P.', 'contradiction'),
  'qnli': (
    {'question': 'Q?', 'sentence': 'S.', 'label': 1},
    'qnli question: Q? sentence: S.',
    'not_entailment',
  ),
  'rte': ({**PAIR, 'label': 0}, 'rte sentence1: One. sentence2: Two.', 'entailment'),
  'wnli': ({**PAIR, 'label': 0}, 'wnli sentence1: One. sentence2: Two.', 'not_entailment'),
  'ax': ({**NLI, 'label': -1}, 'mnli hypothesis: H. premise: P.', '<unk>'),
}
SUPER_GLUE = {
  'boolq': (
    {'question': 'is it', 'passage': 'It is.', 'label': 1},
    'boolq passage: It is. question: is it',
    'True',
  ),
  'cb': ({**NLI, 'label': 1}, 'cb hypothesis: H. premise: P.', 'contradiction'),
  'copa': (
    {'premise': 'P.', 'choice1': 'A.', 'choice2': 'B.', 'question': 'cause', 'label': 1},
    'copa choice1: A. choice2: B. premise: P. question: cause',
    'choice2',
  ),
  'multirc': (
    {
      'paragraph': '<b>Sent 1: </b>One.<br><b>Sent 2: </b>Two.',
      'question': 'Q?',
      'answer': 'A',
      'label': 0,
      'idx': {'paragraph': 3, 'question': 7, 'answer': 0},
    },
    'multirc question: Q? answer: A paragraph: Sent 1: One. Sent 2: Two.',
    'False',
  ),
  'record': (
    {
      'passage': 'It rained.\n@highlight\nIt poured\n@highlight\nEnd',
      'query': 'The @placeholder sang.',
      'entities': ['Ann', 'Bob'],
      'answers': ['Bob'],
      'idx': {'passage': 1, 'query': 2},
    },
    'record query: The @placeholder sang. entities: Ann, Bob passage: It rained. It poured. End',
    'Bob',
  ),
  'rte': ({**NLI, 'label': 1}, 'rte hypothesis: H. premise: P.', 'not_entailment'),
  'wic': (
    {**PAIR, 'word': 'w', 'start1': 0, 'label': 0},
    'wic sentence1: One. sentence2: Two. word: w',
    'False',
  ),
  'wsc': (
    {
      'text': 'Mitchell asked Tom if he could lend some money.',
      'span1_text': 'Tom',
      'span2_text': 'he',
      'span2_index': 4,
      'label': 0,
    },
    'wsc: Mitchell asked Tom if *he* could lend some money.',
    'Tom',
  ),
  'wsc_train': (
    {'text': 'Ann ran as she hid', 'span1_text': 'Ann', 'span2_text': 'she', 'span2_index': 3,
     'label': 1},
    'wsc: Ann ran as *she* hid',
    'Ann',
  ),
  'axb': ({**PAIR, 'label': 1}, 'rte hypothesis: Two. premise: One.', 'not_entailment'),
  'axg': ({**NLI, 'label': 0}, 'rte hypothesis: H. premise: P.', 'entailment'),
}  # fmt: skip


@pytest.mark.parametrize(
  ('form', 'row', 'inputs', 'targets'),
  [
    *((glue.FORMATS[name], *case) for name, case in GLUE.items()),
    *((super_glue.FORMATS[name], *case) for name, case in SUPER_GLUE.items()),
  ],
)
def test_text(form, row, inputs, targets):
  (example,) = form.examples(row)
  assert (example.inputs, example.targets) == (inputs, targets)
  if form.labels and targets != '<unk>':
    assert form.labels[example.label] == targets
  else:
    assert example.label is None
  (bare,) = form.examples(row, taskless=True)
  assert inputs.split(' ', 1)[1] == bare.inputs
  assert bare.targets == targets


def test_every_data_set_has_a_case():
  assert GLUE.keys() == glue.FORMATS.keys()
  assert SUPER_GLUE.keys() == super_glue.FORMATS.keys()
  assert glue.SIZES.keys() < glue.FORMATS.keys()
  assert super_glue.SIZES.keys() < super_glue.FORMATS.keys()


def test_labels_are_those_of_tensorflow_datasets():
  builders = pytest.importorskip('tensorflow_datasets').text
  for suite, configs in (
    (glue, builders.glue.Glue.builder_configs),
    (super_glue, builders.super_glue.SuperGlue.builder_configs),
  ):
    for name, form in suite.FORMATS.items():
      if form.labels is not None:
        assert form.labels == tuple(configs[name].label_classes), name


@pytest.mark.parametrize(
  ('label', 'text'),
  [(0.0, '0.0'), (5.0, '5.0'), (2.5, '2.4'), (0.7, '0.8'), (4.29, '4.2'), (1.1, '1.2')],
)
def test_similarity_is_rounded_to_fifths_in_float32(label, text):
  row = {**PAIR, 'label': np.float32(label)}
  assert glue.FORMATS['stsb'].examples(row)[0].targets == text


def test_labels_in_every_form():
  labels = ('False', 'True')
  assert [formats.label_index(x, labels) for x in (True, False, 'True', 1, 0, -1)] == [
    1, 0, 1, 1, 0, None,
  ]  # fmt: skip
  for bad in ('true', 2, -2, None, 0.5, [1]):
    with pytest.raises(ValueError, match=facts('False', 'True')):
      formats.label_index(bad, labels)


def test_groups_and_answers():
  row, _, _ = SUPER_GLUE['multirc']
  assert super_glue.FORMATS['multirc'].examples(row)[0].fields['group'] == '3/7'
  row, inputs, _ = SUPER_GLUE['record']
  both = super_glue.FORMATS['record'].examples({**row, 'answers': ['Bob', 'Ann']})
  assert [e.targets for e in both] == ['Bob', 'Ann']
  assert {e.inputs for e in both} == {inputs}
  assert all(e.fields == {'answers': ['Bob', 'Ann'], 'group': '1/2'} for e in both)
  (unanswered,) = super_glue.FORMATS['record'].examples({**row, 'answers': []})
  assert unanswered.targets == '<unk>'


def test_pronouns_that_the_index_misses():
  row = {'span1_text': 'Tom', 'span2_text': 'him', 'label': 1}
  text = 'Now he laughed. "Good for him," he said.'
  (example,) = super_glue.FORMATS['wsc'].examples({**row, 'text': text, 'span2_index': 5})
  assert example.inputs == 'wsc: Now he laughed. "Good for *him* ," he said.'
  text = 'they want to use him , but not him now'
  (example,) = super_glue.FORMATS['wsc'].examples({**row, 'text': text, 'span2_index': 3})
  assert example.inputs == 'wsc: they want to use *him* , but not him now'


def test_wrong_candidates_are_not_learned():
  row, _, _ = SUPER_GLUE['wsc']
  assert super_glue.FORMATS['wsc_train'].examples(row) == []
  assert len(super_glue.FORMATS['wsc_train'].examples({**row, 'label': 1})) == 1


@pytest.mark.parametrize(
  ('prediction', 'candidate', 'same'),
  [
    ('Tom', 'Tom', True),
    ('the Tom', 'tom ', True),
    ('councilmen', 'The city councilmen', True),
    ('the city councilmen', 'councilmen', True),
    ('Bob', "Bob's hat", False),
    ('', 'Tom', False),
    ('the', 'Tom', False),
    ('Ann', 'Tom', False),
  ],
)
def test_referents(prediction, candidate, same):
  assert formats.names_referent(prediction, candidate) is same


def test_a_candidate_is_judged_by_whether_it_is_right():
  def example(right):
    return Example(np.ones(1), np.ones(1), '', 'Tom', None, {'right': right}, 'wsc')

  examples = [example(1), example(0), example(1), example(0)]
  found = map(formats.judges_candidate, examples, ['Tom', 'Tom', 'Ann', 'Ann'])
  assert list(found) == [True, False, False, True]
