"""SuperGLUE (Wang et al. 2019) in T5's text formats, read through tensorflow-datasets."""

from typing import TYPE_CHECKING

from prompt_jax.data.example import Task
from prompt_jax.errors import unknown
from prompt_jax.tasks import tfds
from prompt_jax.tasks.formats import (
  Format,
  classification,
  judges_candidate,
  multirc,
  pronoun,
  record,
  right_pronoun,
)

if TYPE_CHECKING:
  import seqio

VERSION = '1.0.2'
ENTAILMENT = 'entailment|not_entailment'
# Label words stand in the order of the label indices of tensorflow-datasets.
FORMATS = {
  'boolq': classification(
    'boolq passage: {passage} question: {question}', 'False|True', long='passage'
  ),
  'cb': classification(
    'cb hypothesis: {hypothesis} premise: {premise}',
    'entailment|contradiction|neutral',
    'f1_macro',
    'accuracy',
    long='premise',
  ),
  'copa': classification(
    'copa choice1: {choice1} choice2: {choice2} premise: {premise} question: {question}',
    'choice1|choice2',
  ),
  'multirc': classification(
    'multirc question: {question} answer: {answer} paragraph: {paragraph}',
    'False|True',
    'f1',
    'group_exact_match',
    write=multirc,
    fields=('group',),
    long='paragraph',
  ),
  'record': Format(
    'record query: {query} entities: {entities} passage: {passage}',
    None,
    ('squad_by_group',),
    record,
    ('answers', 'group'),
    long='passage',
  ),
  'rte': classification('rte hypothesis: {hypothesis} premise: {premise}', ENTAILMENT),
  'wic': classification(
    'wic sentence1: {sentence1} sentence2: {sentence2} word: {word}', 'False|True'
  ),
  # Only right candidates are learned from, but all are asked (T5, section 2.4).
  'wsc_train': Format('wsc: {text}', None, ('exact_match',), right_pronoun, ('right',)),
  'wsc': Format('wsc: {text}', None, ('accuracy',), pronoun, ('right',), judges_candidate),
  # The diagnostic sets are asked as RTE, and have a test split alone.
  'axb': classification('rte hypothesis: {sentence2} premise: {sentence1}', ENTAILMENT),
  'axg': classification('rte hypothesis: {hypothesis} premise: {premise}', ENTAILMENT),
}
# Of the training splits; the mixture's rates.
SIZES = {
  'boolq': 9427,
  'cb': 250,
  'copa': 400,
  'multirc': 27243,
  'record': 138854,
  'rte': 2490,
  'wic': 5428,
  'wsc_train': 259,
}


def super_glue_task(name: str, taskless: bool = False, version: str = VERSION) -> Task:
  """A SuperGLUE task in the ids of whatever vocabulary it is loaded with.

  Args:
    name: a key of FORMATS.
    taskless: leave out the task's name at the beginning of the inputs.
    version: of the data in tensorflow-datasets.
  """
  source = _source(name, version)
  training = _source('wsc_train', version) if name == 'wsc' else source
  splits = {'train': (training, 'train'), 'validation': (source, 'validation')}
  if name in ('axb', 'axg'):
    splits = {}
  return tfds.task(f'super_glue_{name}', {**splits, 'test': (source, 'test')}, taskless)


def seqio_tasks(vocabulary: 'seqio.Vocabulary', version: str = VERSION) -> list['seqio.Task']:
  """Every SuperGLUE task, with and without the task's name, as seqio tasks for one vocabulary."""
  return tfds.seqio_tasks({name: _source(name, version) for name in FORMATS}, vocabulary)


def seqio_mixture(
  vocabulary: 'seqio.Vocabulary', taskless: bool = False, version: str = VERSION
) -> 'seqio.Mixture':
  """The training sets of SuperGLUE in proportion to their sizes."""
  sources = {name: _source(name, version) for name in SIZES}
  return tfds.seqio_mixture('super_glue', sources, SIZES, vocabulary, taskless)


def _source(name: str, version: str) -> tfds.Source:
  if name not in FORMATS:
    raise unknown('SuperGLUE task', name, FORMATS)
  config = 'wsc.fixed' if name.startswith('wsc') else name
  title = f'super_glue_{name}_v{version.replace(".", "")}'
  return tfds.Source(title, f'super_glue/{config}:{version}', FORMATS[name])
