"""GLUE (Wang et al. 2018) in T5's text formats, read through tensorflow-datasets.

Lester et al. (2021) used version 1.0.0 of the data; `version` chooses it.
"""

from typing import TYPE_CHECKING

from prompt_jax.data.example import Task
from prompt_jax.errors import unknown
from prompt_jax.tasks import tfds
from prompt_jax.tasks.formats import Format, classification, similarity

if TYPE_CHECKING:
  import seqio

VERSION = '2.0.0'
NLI = 'entailment|neutral|contradiction'
MNLI = 'mnli hypothesis: {hypothesis} premise: {premise}'
# Label words stand in the order of the label indices of tensorflow-datasets.
FORMATS = {
  'cola': classification(
    'cola sentence: {sentence}', 'unacceptable|acceptable', 'matthews_corrcoef'
  ),
  'sst2': classification('sst2 sentence: {sentence}', 'negative|positive'),
  'mrpc': classification(
    'mrpc sentence1: {sentence1} sentence2: {sentence2}',
    'not_equivalent|equivalent',
    'f1',
    'accuracy',
  ),
  'qqp': classification(
    'qqp question1: {question1} question2: {question2}', 'not_duplicate|duplicate', 'f1', 'accuracy'
  ),
  'stsb': Format(
    'stsb sentence1: {sentence1} sentence2: {sentence2}',
    None,
    ('pearson_corrcoef', 'spearman_corrcoef'),
    similarity,
  ),
  'mnli': classification(MNLI, NLI),
  'mnli_matched': classification(MNLI, NLI),
  'mnli_mismatched': classification(MNLI, NLI),
  'qnli': classification(
    'qnli question: {question} sentence: {sentence}',
    'entailment|not_entailment',
    long='sentence',
  ),
  'rte': classification(
    'rte sentence1: {sentence1} sentence2: {sentence2}', 'entailment|not_entailment'
  ),
  'wnli': classification(
    'wnli sentence1: {sentence1} sentence2: {sentence2}', 'not_entailment|entailment'
  ),
  # The diagnostic set is asked as MNLI, and has a test split alone, without labels.
  'ax': classification(MNLI, NLI),
}
# Trained on one and measured on the other, which is asked in the words of the first.
TRANSFER = {
  'mrpc_from_qqp': (
    'qqp',
    'mrpc',
    classification(
      'qqp question1: {sentence1} question2: {sentence2}',
      'not_duplicate|duplicate',
      'f1',
      'accuracy',
    ),
  ),
  'qqp_from_mrpc': (
    'mrpc',
    'qqp',
    classification(
      'mrpc sentence1: {question1} sentence2: {question2}',
      'not_equivalent|equivalent',
      'f1',
      'accuracy',
    ),
  ),
}
# Of the training splits; the mixture's rates. WNLI is left out of it, as by T5.
SIZES = {
  'cola': 8551,
  'sst2': 67349,
  'mrpc': 3668,
  'qqp': 363849,
  'stsb': 5749,
  'mnli': 392702,
  'qnli': 104743,
  'rte': 2490,
}


def glue_task(name: str, taskless: bool = False, version: str = VERSION) -> Task:
  """A GLUE task in the ids of whatever vocabulary it is loaded with.

  Args:
    name: a key of FORMATS or TRANSFER.
    taskless: leave out the task's name at the beginning of the inputs.
    version: of the data in tensorflow-datasets.
  """
  if name in TRANSFER:
    trained, measured, form = TRANSFER[name]
    asked = _source(measured, version)._replace(name=f'glue_{name}', form=form)
    here = _source(trained, version)
    splits = {'train': (here, 'train'), 'validation': (here, 'validation')}
    return tfds.task(f'glue_{name}', {**splits, 'test': (asked, 'validation')}, taskless)
  source = _source(name, version)
  named = {
    'mnli': {'train': 'train', 'validation': 'validation_matched', 'test': 'test_matched'},
    'ax': {'test': 'test'},
    'mnli_matched': {'validation': 'validation', 'test': 'test'},
    'mnli_mismatched': {'validation': 'validation', 'test': 'test'},
  }.get(name, {s: s for s in ('train', 'validation', 'test')})
  title = f'glue_{name}'
  return tfds.task(title, {s: (source, t) for s, t in named.items()}, taskless)


def seqio_tasks(vocabulary: 'seqio.Vocabulary', version: str = VERSION) -> list['seqio.Task']:
  """Every GLUE task, with and without the task's name, as seqio tasks for one vocabulary.

  They are not registered: `for task in seqio_tasks(v): seqio.TaskRegistry.add_provider(task.name,
  task)` does that, once for a vocabulary.
  """
  return tfds.seqio_tasks({name: _source(name, version) for name in FORMATS}, vocabulary)


def seqio_mixture(
  vocabulary: 'seqio.Vocabulary', taskless: bool = False, version: str = VERSION
) -> 'seqio.Mixture':
  """The training sets of GLUE in proportion to their sizes."""
  sources = {name: _source(name, version) for name in SIZES}
  return tfds.seqio_mixture('glue', sources, SIZES, vocabulary, taskless)


def _source(name: str, version: str) -> tfds.Source:
  if name not in FORMATS:
    raise unknown('GLUE task', name, [*FORMATS, *TRANSFER])
  digits = version.replace('.', '')
  return tfds.Source(f'glue_{name}_v{digits}', f'glue/{name}:{version}', FORMATS[name])
