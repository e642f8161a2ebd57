"""seqio tasks and mixtures, user-defined ones included, in the ids of the model's vocabulary.

The only module of the package that imports seqio, and with it TensorFlow; import it where it is
used. A task is read once into memory, as the batch stream needs to know every length; a very large
one needs a limit, or a recording of a part of it.
"""

import dataclasses
import functools
import importlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio

from prompt_jax.data.example import TAIL, Example, Lengths, Loader, Task, check_lengths, encode
from prompt_jax.data.vocabulary import ByteVocabulary, SentencePieceVocabulary, Vocabulary
from prompt_jax.errors import UserError, unknown

# The features that tell an encoder-decoder what to read and write.
FEATURES = ('inputs', 'targets')


def seqio_task(
  name: str, modules: Sequence[str] = (), limit: int | None = None, seed: int = 0
) -> Task:
  """A registered seqio task or mixture as a `Task`.

  It is read with the model's vocabulary, which replaces that of its features before its
  preprocessors run. Predictions are scored by its own postprocessing and metrics.

  A mixture keeps its published rates: an epoch is the smallest in which every task has its share
  and no training example is left out, so smaller tasks are repeated. The other splits hold every
  example of every task once.

  Args:
    name: in seqio's registries.
    modules: Python modules to import first, those that register the task ("my_package.tasks").
    limit: at most so many examples of each task and split, the first ones; None for all.
    seed: of stochastic preprocessors (span corruption) and of what a mixture repeats.

  Raises:
    UserError: a module that cannot be imported, no such task, or one that is judged by nothing but
      metrics of other things than predictions.
  """
  for module in modules:
    try:
      importlib.import_module(module)
    except ImportError as error:
      raise UserError(
        f'Cannot import {module}, which is to register {name}: {error}. Install it, or put its '
        'folder on PYTHONPATH (PYTHONPATH=. for the current one).',
        parameters=['module'],
      ) from error
    except Exception as error:  # it raises whatever it likes
      raise UserError(
        f'The module {module}, which is to register {name}, failed: {type(error).__name__}: {error}'
      ) from error
  known = [*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()]
  if name not in known:
    raise unknown('seqio task or mixture', name, known, 'Name the module that registers it.')
  found = seqio.get_mixture_or_task(name)
  tasks = found.tasks if isinstance(found, seqio.Mixture) else [found]
  rates = [found.get_rate(t) if isinstance(found, seqio.Mixture) else 1.0 for t in tasks]
  _check_metrics(tasks)

  def loader(split: str) -> Loader:
    def load(vocabulary: Vocabulary, lengths: Lengths) -> list[Example]:
      theirs = seqio_vocabulary(vocabulary)
      parts = [
        read(with_vocabulary(t, theirs), split, vocabulary, lengths, limit, seed)
        if split in t.splits and (split != 'train' or rate > 0)
        else []
        for t, rate in zip(tasks, rates, strict=True)
      ]
      if split == 'train':
        return mix(parts, rates, seed)
      return list(itertools.chain.from_iterable(parts))

    return load

  return Task(
    name=name,
    splits={split: loader(split) for split in sorted(found.splits)},
    labels=None,
    metrics=('exact_match',),
    score=_score(tasks) if any(t.predict_metric_fns for t in tasks) else None,
    about=f'seqio {type(found).__name__.lower()} {name}',
  )


def seqio_vocabulary(vocabulary: Vocabulary) -> seqio.Vocabulary:
  """seqio's form of a vocabulary, with the same ids."""
  if isinstance(vocabulary, SentencePieceVocabulary):
    return seqio.SentencePieceVocabulary(vocabulary.path, vocabulary.extra_ids)
  if isinstance(vocabulary, ByteVocabulary):
    return seqio.ByteVocabulary()  # as ByT5 was trained: its sentinels are the last bytes
  raise TypeError(f'no seqio vocabulary is known for a {type(vocabulary).__name__}')


def with_vocabulary(task: seqio.Task, vocabulary: seqio.Vocabulary) -> seqio.Task:
  """The task, tokenising with another vocabulary; the original is left as it is."""
  features = {
    name: dataclasses.replace(feature, vocabulary=vocabulary) if name in FEATURES else feature
    for name, feature in task.output_features.items()
  }
  return task.replace(output_features=features)


def read(
  task: seqio.Task,
  split: str,
  vocabulary: Vocabulary,
  lengths: Lengths,
  limit: int | None = None,
  seed: int = 0,
) -> list[Example]:
  """The examples of one split, in the order of the source.

  Args:
    task: whose features have the ids of `vocabulary` (`with_vocabulary`).
    split: one of the task's.
    vocabulary: the model's.
    lengths: longest sequences; what is cut still ends with the end of the sequence.
    limit: the first so many; None for all.
    seed: of stochastic preprocessors.

  Raises:
    UserError: the task has no inputs and targets, or its data cannot be read.
  """
  check_lengths(lengths)
  missing = [name for name in FEATURES if name not in task.output_features]
  if missing:
    raise UserError(
      f'The seqio task {task.name!r} has the features {", ".join(task.output_features)}, but an '
      f'encoder-decoder needs {" and ".join(FEATURES)}.'
    )
  try:
    dataset = task.get_dataset(
      sequence_length=dict(lengths._asdict()), split=split, shuffle=False, seed=seed, num_epochs=1
    )
    rows = list(itertools.islice(dataset.as_numpy_iterator(), limit))
  except Exception as error:  # TensorFlow, tfds and user code raise whatever they like.
    raise UserError(
      f'The seqio task {task.name!r} cannot read its split {split!r}: '
      f'{type(error).__name__}: {error}'
    ) from error
  return [_example(row, task, vocabulary, lengths) for row in rows]


def mix(parts: Sequence[Sequence[Example]], rates: Sequence[float], seed: int) -> list[Example]:
  """One epoch of several tasks by rate: none left out, smaller ones repeated.

  Args:
    parts: the examples of each task.
    rates: relative numbers of examples; 0 leaves a task out.
    seed: of which examples are repeated once more than the others.
  """
  used = [(part, rate) for part, rate in zip(parts, rates, strict=True) if rate > 0 and part]
  if not used:
    return []
  # The number of examples a unit of rate stands for, such that the task that is sampled least
  # often still comes round once.
  unit = max(len(part) / rate for part, rate in used)
  mixed: list[Example] = []
  for number, (part, rate) in enumerate(used):
    whole, rest = divmod(round(unit * rate), len(part))
    order = np.random.Generator(np.random.Philox(key=[seed, number])).permutation(len(part))
    mixed += [*part] * whole + [part[i] for i in sorted(order[:rest])]
  return mixed


def _example(
  row: Mapping[str, Any], task: seqio.Task, vocabulary: Vocabulary, lengths: Lengths
) -> Example:
  ids = {}
  for name in FEATURES:
    raw = np.asarray(row[name])
    if raw.ndim != 1 or raw.dtype.kind not in 'iu':
      raise UserError(
        f'The feature {name!r} of the seqio task {task.name!r} is {raw.dtype}[{raw.ndim} '
        'dimensions]; expected one row of token ids.'
      )
    ends = task.output_features[name].add_eos
    ids[name] = _end(raw.astype(np.int32), vocabulary, lengths._asdict()[name], ends)
  fields = {
    name: _plain(value)
    for name, value in row.items()
    if name not in FEATURES and not name.endswith('_pretokenized')
  }
  text, tail = _text(row, 'inputs', ids, vocabulary), fields.pop(TAIL, '')
  if tail and text.endswith(tail):  # seqio has cut the end
    ids['inputs'] = encode(text, vocabulary, lengths.inputs, tail)
  label = fields.get('label')
  return Example(
    inputs=ids['inputs'],
    targets=ids['targets'],
    inputs_text=text,
    targets_text=_text(row, 'targets', ids, vocabulary),
    label=label if isinstance(label, int) and label >= 0 else None,
    fields=fields,
    task=task.name,
  )


def _end(ids: np.ndarray, vocabulary: Vocabulary, length: int, ends: bool) -> np.ndarray:
  """The ids, cut to `length`, with the end of a sequence behind them if a feature has one.

  seqio trims after a preprocessor that appends the end has run: then the end is cut off.
  """
  if not ends:
    return ids[:length]
  if len(ids) and ids[-1] == vocabulary.eos_id and len(ids) <= length:
    return ids
  return np.append(ids[: length - 1], np.int32(vocabulary.eos_id))


def _text(
  row: Mapping[str, Any], name: str, ids: Mapping[str, np.ndarray], vocabulary: Vocabulary
) -> str:
  text = _plain(row.get(f'{name}_pretokenized', b''))
  return text if isinstance(text, str) and text else vocabulary.decode(ids[name].tolist())


def _plain(value: Any) -> Any:
  """Bytes as text and arrays as lists, so that fields can be recorded and printed."""
  if isinstance(value, bytes):
    return value.decode('utf-8', errors='replace')
  if isinstance(value, np.ndarray):
    return [_plain(part) for part in value.tolist()] if value.ndim else _plain(value.item())
  return value.item() if isinstance(value, np.generic) else value


def _score(tasks: Sequence[seqio.Task]):
  """The tasks' own metrics; of a mixture each is named after its task."""
  by_name = {task.name: task for task in tasks}
  left_out: set[str] = set()  # said once, however often a bootstrap measures

  def score(examples: Sequence[Example], predictions: Sequence[str]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name, task in by_name.items():
      mine = [(e, p) for e, p in zip(examples, predictions, strict=True) if e.task == name]
      if mine:
        found = dict(_metrics(task, mine, left_out))
        scores |= found if len(by_name) == 1 else {f'{name}/{k}': v for k, v in found.items()}
    return scores

  return score


def _metrics(
  task: seqio.Task, pairs: Sequence[tuple[Example, str]], left_out: set[str]
) -> Iterator[tuple[str, float]]:
  """Targets and predictions go through the task's postprocessing as in seqio's evaluator.

  Args:
    task: whose metrics are computed.
    pairs: its examples and what was predicted.
    left_out: names of values that were said to be no numbers; more are added.

  Raises:
    UserError: the task's own code fails, or gives what is no value of a metric.
  """
  process = functools.partial(_called, task, 'postprocessing', task.postprocess_fn)
  targets, predictions = [], []
  for example, prediction in pairs:
    row = {
      **example.fields,
      'inputs_pretokenized': example.inputs_text,
      'targets_pretokenized': example.targets_text,
    }
    targets.append(process(example.targets_text, example=row, is_target=True))
    predictions.append(process(prediction, example=row, is_target=False))
  for metric in task.predict_metric_fns:
    what = f'metric {getattr(metric, "__name__", type(metric).__name__)}'
    found = _called(task, what, metric, targets, predictions)
    values: dict[str, Any] = dict(found) if isinstance(found, Mapping) else {'': None}
    for name, value in values.items():
      if isinstance(value, seqio.metrics.Scalar):
        value = value.value
      if isinstance(value, seqio.metrics.MetricValue):  # has no place in a table
        if name not in left_out:
          left_out.add(name)
          kind = type(value).__name__
          warnings.warn(f'{task.name}: left out is {name!r}, a {kind} and no number', stacklevel=2)
        continue
      try:
        yield name, float(value)
      except (TypeError, ValueError):
        given = f'{name!r}: {type(value).__name__}' if name else type(found).__name__
        raise UserError(
          f'The {what} of the seqio task {task.name!r} returned {given}; expected a mapping of '
          'names to numbers or seqio.metrics.Scalar.'
        ) from None


def _called(task: seqio.Task, what: str, function: Callable[..., Any], *args, **kwargs) -> Any:
  """The result of a function that the task brings."""
  try:
    return function(*args, **kwargs)
  except Exception as error:  # it raises whatever it likes
    raise UserError(
      f'The {what} of the seqio task {task.name!r} failed: {type(error).__name__}: {error}'
    ) from error


def _check_metrics(tasks: Sequence[seqio.Task]) -> None:
  """Warns of metrics that are no functions of predictions; refuses a task that has no others."""
  for task in tasks:
    try:
      others = [*task.score_metric_fns, *task.predict_with_aux_metric_fns]
    except ValueError as error:
      raise UserError(f'A metric of the seqio task {task.name!r}: {error}') from error
    # Those of functions stand last.
    others += task.metric_objs[: len(task.metric_objs) - len(task.metric_fns)]
    names = ', '.join(getattr(m, '__name__', type(m).__name__) for m in others)
    if not others:
      continue
    if not task.predict_metric_fns:
      raise UserError(
        f'The seqio task {task.name!r} is judged by {names}, and not by a function of targets and '
        'predictions. Metrics of scores or other outputs, and metric objects, are not computed '
        'here: give it a metric function of the arguments targets and predictions.'
      )
    warnings.warn(
      f'{task.name}: left out is {names}, which is no function of targets and predictions',
      stacklevel=3,
    )
