"""Data of tensorflow-datasets in our text formats, as seqio tasks and as `Task`s.

A vocabulary is an argument, never part of a name: seqio compares the vocabularies of task and model
by file and sentinels, so a task registered once with a fixed vocabulary could not serve a second
model. So formats have no vocabulary (`formats.py`), the functions here build seqio tasks for a
given vocabulary, and nothing is registered implicitly.

TensorFlow and seqio are imported when a dataset is built: describing a task needs neither.
"""

import dataclasses
import importlib
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prompt_jax.data.example import TAIL, Example, Lengths, Loader, Task, TextExample
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError, install
from prompt_jax.tasks.data_set import DataSet, check_variant, renamed
from prompt_jax.tasks.formats import Format, RowValues

if TYPE_CHECKING:
  import seqio
  import tensorflow as tf


class Source(NamedTuple):
  """A data set: its seqio name, its name in tensorflow-datasets, and its text form."""

  name: str
  tfds_name: str
  form: Format


def task(name: str, splits: Mapping[str, tuple[Source, str]], taskless: bool) -> Task:
  """A task of ours from splits of data sets: name -> (data set, its own name of the split)."""

  title = f'taskless_{name}' if taskless else name

  def loader(source: Source, split: str) -> Loader:
    def load(vocabulary: Vocabulary, lengths: Lengths) -> list[Example]:
      library = seqio_library(name)
      built = seqio_task(source, library.seqio_vocabulary(vocabulary), taskless)
      try:
        examples = library.read(built, split, vocabulary, lengths)
      except UserError as error:
        raise UserError(f'{error} If it is not there yet: tfds build {source.tfds_name}') from error
      # seqio's name tells the version; ours is what mixtures and task ids go by.
      return [dataclasses.replace(e, task=title) for e in examples]

    return load

  source, _ = list(splits.values())[-1]
  return Task(
    name=title,
    splits={split: loader(*found) for split, found in splits.items()},
    labels=source.form.labels,
    metrics=source.form.metrics,
    right=source.form.right,
    about=f'{source.tfds_name} through tensorflow-datasets: "{source.form.template}"',
  )


def data_set_task(name: str, found: DataSet, taskless: bool) -> Task:
  """A data set of the catalogue ("xquad.de") through tensorflow-datasets."""
  base, _, variant = name.partition('.')
  check_variant(base, found, variant)

  def write(row: RowValues, form: Format) -> Iterable[TextExample]:
    return found.form.examples(renamed(row, found.tfds_columns))

  form = dataclasses.replace(found.form, write=write)
  title = name.replace('.', '_')
  source = Source(title, found.tfds.format(variant=variant), form)
  splits = {split: (source, theirs) for split, theirs in found.tfds_splits.items()}
  return task(name, splits, taskless and found.named)


def seqio_library(name: str) -> types.ModuleType:
  """The module that reads seqio tasks; where seqio is absent, an error that says what needs it."""
  try:
    return importlib.import_module('prompt_jax.data.seqio_source')
  except ImportError as error:
    raise UserError(
      f'The task {name!r} needs seqio ({error}). Install it, {install("seqio")}'
    ) from error


def seqio_task(
  source: Source,
  vocabulary: 'seqio.Vocabulary',
  taskless: bool,
  data: 'seqio.DataSource | None' = None,
) -> 'seqio.Task':
  """The seqio task of a data set for one vocabulary; `data` replaces tensorflow-datasets."""
  import seqio

  return seqio.Task(
    f'taskless_{source.name}' if taskless else source.name,
    source=data or seqio.TfdsDataSource(tfds_name=source.tfds_name),
    preprocessors=[
      _Preprocessor(source.form, taskless),
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
      name: seqio.Feature(vocabulary=vocabulary, add_eos=True) for name in ('inputs', 'targets')
    },
  )


def seqio_tasks(
  sources: Mapping[str, Source], vocabulary: 'seqio.Vocabulary'
) -> list['seqio.Task']:
  """The tasks of several data sets, each with and without the task's name."""
  return [seqio_task(s, vocabulary, t) for s in sources.values() for t in (False, True)]


def seqio_mixture(
  name: str,
  sources: Mapping[str, Source],
  rates: Mapping[str, float],
  vocabulary: 'seqio.Vocabulary',
  taskless: bool,
) -> 'seqio.Mixture':
  """A mixture of data sets by rate."""
  import seqio

  tasks = [(seqio_task(sources[n], vocabulary, taskless), rate) for n, rate in rates.items()]
  return seqio.Mixture(f'taskless_{name}_mixture' if taskless else f'{name}_mixture', tasks)


class _Preprocessor:
  """A seqio preprocessor that runs a format of ours on each row."""

  def __init__(self, form: Format, taskless: bool):
    self.form = form
    self.taskless = taskless

  def __call__(self, dataset: 'tf.data.Dataset') -> 'tf.data.Dataset':
    import tensorflow as tf

    types = {
      'inputs': tf.TensorSpec((), tf.string),
      'targets': tf.TensorSpec((), tf.string),
      'label': tf.TensorSpec((), tf.int32),
      'answers': tf.TensorSpec((None,), tf.string),
      'group': tf.TensorSpec((), tf.string),
      'right': tf.TensorSpec((), tf.int32),
      TAIL: tf.TensorSpec((), tf.string),
    }
    label = ('label',) if self.form.labels else ()
    names = ('inputs', 'targets', TAIL, *label, *self.form.fields)

    def written() -> Iterator[dict[str, Any]]:
      for row in dataset.as_numpy_iterator():
        for example in self.form.examples(plain(row), self.taskless):
          values = {
            'inputs': example.inputs,
            'targets': example.targets,
            TAIL: example.tail,
            'label': -1 if example.label is None else example.label,
            **example.fields,
          }
          yield {name: values[name] for name in names}

    return tf.data.Dataset.from_generator(
      written, output_signature={name: types[name] for name in names}
    )


def plain(value: Any) -> Any:
  """What a NumPy iterator of tf.data gives, as plain Python: bytes are text, arrays lists."""
  if isinstance(value, Mapping):
    return {name: plain(part) for name, part in value.items()}
  if isinstance(value, bytes):
    return value.decode('utf-8')
  if isinstance(value, np.ndarray):
    return [plain(part) for part in value.tolist()] if value.ndim else plain(value.item())
  return value.item() if isinstance(value, np.generic) else value
