"""Public data sets from JSON Lines files in a folder: no TensorFlow, no download.

The folder holds one folder a data set with `{split}.jsonl` or `{split}.jsonl.gz` files, for data in
several languages `{split}.{language}.jsonl[.gz]`; their columns are those of GLUE and SuperGLUE, or
of the original data. Formats are T5's; label words are those of the data sets.
"""

import pathlib
from collections.abc import Sequence

from prompt_jax.data.example import Task, TextExample, text_task
from prompt_jax.data.split import held_out
from prompt_jax.data.table import fail, read_table
from prompt_jax.errors import UserError, unknown
from prompt_jax.tasks import glue, super_glue
from prompt_jax.tasks.formats import (
  Format,
  answer,
  classification,
  classify_spaced,
  question,
  reference,
)

SPLITS = ('train', 'validation', 'test')
GENERATION = ('bleu', 'rouge')
FORMATS = {
  **{name: super_glue.FORMATS[name] for name in ('rte', 'cb', 'copa', 'boolq', 'wic')},
  **{name: glue.FORMATS[name] for name in ('sst2', 'mrpc', 'mnli')},
  'trec': classification(
    'trec question: {question}', 'abbreviation|description|entity|human|location|number'
  ),
  'ag_news': classification(
    'ag_news title: {title} description: {description}', 'World|Sports|Business|Sci/Tech'
  ),
  # The labels of banking77 are read from its training file: there are 77.
  'banking77': Format('banking77 text: {text}', (), ('accuracy', 'f1_macro'), classify_spaced),
  'sib200': classification(
    'sib200 text: {text}',
    'science/technology|travel|politics|sports|health|entertainment|geography',
  ),
  'nusax_senti': classification('nusax text: {text}', 'positive|neutral|negative'),
  'xcopa': super_glue.FORMATS['copa'],
  'xquad': Format('question: {question} context: {context}', None, ('squad',), answer),
  'restaurant8k': Format('question: {question} context: {context}', None, ('squad',), answer),
  'squad_qg': Format('generate question: {sentence}', None, GENERATION, question),
  'webnlg2017': Format('webnlg: {triples}', None, GENERATION, reference),
  'asset': Format('simplify: {source}', None, GENERATION, reference),
  'dialogsum': Format('summarize: {dialogue}', None, ('rouge', 'bleu'), reference),
}
# Their inputs do not begin with the task's name, so there is nothing to leave out.
WITHOUT_NAME = frozenset({'xquad', 'restaurant8k'})


def jsonl_task(name: str, folder: str, taskless: bool = False) -> Task:
  """A data set of the folder as a task.

  A data set without a validation file gets a tenth of its training file, stratified by label.

  Args:
    name: a key of FORMATS; for data in several languages "name.language" ("sib200.swh_Latn").
    folder: where the folders of the data sets are.
    taskless: leave out the task's name at the beginning of the inputs, as prompt tuning does.

  Raises:
    UserError: an unknown name, or no file for it.
  """
  base, _, language = name.partition('.')
  if base not in FORMATS:
    raise unknown('data set', base, FORMATS)
  place = pathlib.Path(folder) / base
  files = {split: _file(place, split, language) for split in SPLITS}
  present = {split: file for split, file in files.items() if file is not None}
  if not present:
    have = sorted(p.name for p in place.glob('*.jsonl*'))
    want = f'train.{language}.jsonl' if language else 'train.jsonl'
    raise UserError(
      f'No files of {name} in {place}: expected {want} or {want}.gz, and so on for the other '
      f'splits. There are: {", ".join(have) or "none"}.'
    )
  form = FORMATS[base]
  if base == 'banking77':
    form = _with_labels(form, present[next(iter(present))])
  taskless = taskless and base not in WITHOUT_NAME

  def read(split: str) -> list[TextExample]:
    drawn = 'validation' not in present and split in ('train', 'validation')
    examples = read_examples(present['train' if drawn else split], form, taskless)
    return _drawn(examples, split) if drawn else examples

  splits = dict.fromkeys(present)
  if 'train' in present:
    splits['validation'] = None
  return text_task(
    f'taskless_{name}' if taskless else name,
    {split: (lambda split=split: read(split)) for split in splits},  # type: ignore[misc]
    form.labels,
    form.metrics,
    about=f'{place}: "{form.template}"',
  )


def read_examples(path: pathlib.Path, form: Format, taskless: bool) -> list[TextExample]:
  """The examples of a file; a bad row is an error that names its line."""
  done = []
  table = read_table(path)
  for row in table.rows:
    try:
      written = form.examples(row.values, taskless)
    except KeyError as error:
      fail(path, row.line, f'no column {error}; this data set needs it')
    except ValueError as error:
      fail(path, row.line, str(error))
    except (TypeError, AttributeError, IndexError) as error:
      fail(path, row.line, f'a column holds what this data set never has there ({error})')
    done += [
      TextExample(e.inputs, e.targets, e.label, e.fields, f'{path}:{row.line}') for e in written
    ]
  return done


def _file(place: pathlib.Path, split: str, language: str) -> pathlib.Path | None:
  stem = f'{split}.{language}' if language else split
  for path in (place / f'{stem}.jsonl', place / f'{stem}.jsonl.gz'):
    if path.is_file():
      return path
  return None


def _with_labels(form: Format, path: pathlib.Path) -> Format:
  labels = {str(row.values.get('label', '')).replace('_', ' ') for row in read_table(path).rows}
  return Format(form.template, tuple(sorted(labels)), form.metrics, form.write)


def _drawn(examples: Sequence[TextExample], split: str) -> list[TextExample]:
  where = held_out(
    [e.inputs for e in examples], [e.label for e in examples], {'validation': 0.1}, seed=0
  )
  return [e for e, w in zip(examples, where, strict=True) if w == split]
