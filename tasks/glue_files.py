"""GLUE and SuperGLUE from the archives of their makers: no tensorflow-datasets needed.

The task glue_rte is read from the folder glue_data, super_glue_rte from super_glue. The test splits
have no labels and are left out.
"""

import pathlib
from collections.abc import Iterator
from typing import Any

from prompt_jax.errors import UserError
from prompt_jax.tasks import glue, readers, super_glue
from prompt_jax.tasks.data_set import DataSet

GLUE = 'https://dl.fbaipublicfiles.com/glue/data'
SUPER_GLUE = 'https://dl.fbaipublicfiles.com/glue/superglue/data/v2'
PAIR = {'sentence1': '#1 String', 'sentence2': '#2 String', 'label': 'Quality'}


def _glue(name: str, place: str, kind: str, dev: str = 'dev.tsv', **rest: Any) -> DataSet:
  form = glue.FORMATS[name]
  return DataSet(
    form,
    kind,
    f'GLUE (Wang et al. 2018): {place}',
    place=place,
    files={'train': 'train.tsv', 'validation': dev},
    words={str(i): label for i, label in enumerate(form.labels or ())},
    get=f'curl -O {GLUE}/{place}.zip && unzip {place}.zip',
    **rest,
  )


def _super_glue(
  name: str, place: str, kind: str, read: readers.Reader = readers.table, **rest: Any
) -> DataSet:
  return DataSet(
    super_glue.FORMATS[name],
    kind,
    f'SuperGLUE (Wang et al. 2019): {place}',
    place=place,
    files={'train': 'train.jsonl', 'validation': 'val.jsonl'},
    read=read,
    get=f'curl -O {SUPER_GLUE}/{place}.zip && unzip {place}.zip',
    **rest,
  )


def _transfer(name: str, trained: str, measured: str, columns: dict[str, Any]) -> DataSet:
  """A prompt for paraphrases of questions, measured on sentences, or the reverse."""
  form = glue.FORMATS[name]
  return DataSet(
    form,
    'paraphrase',
    f'trained on {trained}, measured on {measured} (Lester et al. 2021, section 5)',
    place='.',
    files={
      'train': f'{trained}/train.tsv',
      'validation': f'{trained}/dev.tsv',
      'test': f'{measured}/dev.tsv',
    },
    columns={**columns, 'label': ('is_duplicate', 'Quality')},
    words={str(i): label for i, label in enumerate(form.labels or ())},
    get=f'curl -O {GLUE}/QQP.zip -O {GLUE}/MRPC.zip && unzip QQP.zip && unzip MRPC.zip',
  )


def multirc(path: pathlib.Path, split: str) -> Iterator[readers.LocatedRow]:
  """A paragraph with its questions and their answers a line -> a row an answer."""
  for row in readers.table(path, split):
    passage = _nested(row, 'passage')
    for question in passage.get('questions', ()):
      for answer in question['answers']:
        idx = {'paragraph': row.values['idx'], 'question': question['idx'], 'answer': answer['idx']}
        values = {'paragraph': passage['text'], 'question': question['question'], 'idx': idx}
        yield readers.LocatedRow(
          row.where, {**values, 'answer': answer['text'], 'label': answer['label']}
        )


def record(path: pathlib.Path, split: str) -> Iterator[readers.LocatedRow]:
  """A passage, where its names stand, and its questions a line -> a row a question."""
  for row in readers.table(path, split):
    passage = _nested(row, 'passage')
    text = passage['text']
    names = {text[e['start'] : e['end'] + 1] for e in passage['entities']}
    for question in row.values['qas']:
      yield readers.LocatedRow(
        row.where,
        {
          'passage': text,
          'query': question['query'],
          'entities': sorted(names),
          'answers': sorted({answer['text'] for answer in question.get('answers', ())}),
          'idx': {'passage': row.values['idx'], 'query': question['idx']},
        },
      )


def wsc(path: pathlib.Path, split: str) -> Iterator[readers.LocatedRow]:
  """The spans stand in an object of their own."""
  for row in readers.table(path, split):
    label = {'label': int(row.values.get('label', -1))}
    yield readers.LocatedRow(row.where, {**row.values, **_nested(row, 'target'), **label})


def _nested(row: readers.LocatedRow, name: str) -> dict[str, Any]:
  found = row.values.get(name)
  if not isinstance(found, dict):
    raise UserError(f'{row.where}: {name!r} is no object; expected the format of SuperGLUE')
  return found


SETS = {
  'glue_cola': _glue(
    'cola', 'CoLA', 'acceptability', read=readers.tsv('source', 'label', 'star', 'sentence')
  ),
  'glue_sst2': _glue('sst2', 'SST-2', 'sentiment'),
  'glue_mrpc': _glue('mrpc', 'MRPC', 'paraphrase', columns=PAIR),
  'glue_qqp': _glue('qqp', 'QQP', 'paraphrase', columns={'label': 'is_duplicate'}),
  'glue_stsb': _glue('stsb', 'STS-B', 'similarity', columns={'label': 'score'}),
  'glue_mnli': _glue(
    'mnli', 'MNLI', 'nli', 'dev_matched.tsv',
    columns={'premise': 'sentence1', 'hypothesis': 'sentence2', 'label': 'gold_label'},
  ),
  'glue_qnli': _glue('qnli', 'QNLI', 'nli'),
  'glue_rte': _glue('rte', 'RTE', 'nli'),
  'glue_wnli': _glue('wnli', 'WNLI', 'nli'),
  'super_glue_boolq': _super_glue('boolq', 'BoolQ', 'qa'),
  'super_glue_cb': _super_glue('cb', 'CB', 'nli'),
  'super_glue_copa': _super_glue('copa', 'COPA', 'choice'),
  'super_glue_multirc': _super_glue('multirc', 'MultiRC', 'qa', multirc),
  'super_glue_record': _super_glue('record', 'ReCoRD', 'qa', record),
  'super_glue_rte': _super_glue('rte', 'RTE', 'nli'),
  'super_glue_wic': _super_glue('wic', 'WiC', 'word_sense'),
  'super_glue_wsc': _super_glue(
    'wsc', 'WSC', 'coreference', wsc, train_form=super_glue.FORMATS['wsc_train']
  ),
  'glue_mrpc_from_qqp': _transfer(
    'qqp', 'QQP', 'MRPC', {'question1': '#1 String', 'question2': '#2 String'}
  ),
  'glue_qqp_from_mrpc': _transfer(
    'mrpc', 'MRPC', 'QQP',
    {'sentence1': ('#1 String', 'question1'), 'sentence2': ('#2 String', 'question2')},
  ),
}  # fmt: skip
