"""Tokenised examples in one file, to be replayed with neither TensorFlow nor seqio installed.

The format is NumPy's .npz: all ids end to end with the offsets of the examples, and one JSON text
with what is not ids. Nothing is pickled.
"""

import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prompt_jax.data.example import Example, Lengths, Task, same_text
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError

FORMAT = 'prompt_jax examples 1'


def record(
  path: str | os.PathLike[str],
  task: Task,
  splits: Sequence[str],
  vocabulary: Vocabulary,
  lengths: Lengths,
) -> None:
  """Writes splits of a task, in the ids of a vocabulary, to one file.

  The file is written atomically. Fields that JSON cannot hold are written as text.

  Args:
    path: of the file, usually ending in .npz.
    task: whose examples are recorded, with its name, labels and metrics.
    splits: names of splits of the task.
    vocabulary: its hash goes into the file; replaying with another one is an error.
    lengths: the longest inputs and targets.

  Raises:
    UserError: no examples, a file that cannot be written, a mixture, or a task that is scored
      by its own functions, which a file cannot hold.
  """
  for name, own in (('score', task.score), ('postprocess', task.postprocess)):
    if own not in (None, same_text):
      raise UserError(
        f'The task {task.name!r} is scored by its own function ({name}), which a file of '
        'examples cannot hold: a replay would give other scores. Use the task by its name.'
      )
  if task.parts:
    raise UserError(
      f'{task.name!r} is evaluated on several tasks, and a file of examples holds one. Record each '
      'separately.'
    )
  loaded = {split: task.load(split, vocabulary, lengths) for split in splits}
  arrays: dict[str, np.ndarray] = {}
  texts: dict[str, list[dict[str, Any]]] = {}
  for split, examples in loaded.items():
    if not examples:
      raise UserError(f'The split {split!r} of task {task.name!r} has no examples to record.')
    for side in ('inputs', 'targets'):
      ids = [getattr(e, side) for e in examples]
      arrays[f'{split}/{side}'] = np.concatenate([np.zeros(0, np.int32), *ids])
      arrays[f'{split}/{side}_end'] = np.cumsum([len(i) for i in ids], dtype=np.int64)
    texts[split] = [_text(e) for e in examples]
  about = {
    'format': FORMAT,
    'task': task.name,
    'labels': task.labels,
    'words': task.words,
    'columns': task.columns,
    'metrics': task.metrics,
    'about': task.about,
    'vocabulary': vocabulary.sha256,
    'extra_ids': vocabulary.extra_ids,
    'lengths': lengths._asdict(),
    'texts': texts,
  }
  arrays['about'] = np.frombuffer(json.dumps(about, default=str).encode('utf-8'), np.uint8)
  _write(pathlib.Path(path), arrays)


def replay(path: str | os.PathLike[str]) -> Task:
  """The task of a file that `record` wrote.

  It loads with the recorded vocabulary and with lengths no shorter than the recorded ones.

  Raises:
    UserError: no such file, not such a file, or (on loading) another vocabulary or shorter lengths.
  """
  path = pathlib.Path(path)
  if not os.path.isfile(path):
    raise UserError(f'There is no file of recorded examples {path}.')
  try:
    with open(path, 'rb') as opened, np.load(opened, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    about = json.loads(arrays.pop('about').tobytes().decode('utf-8'))
    if about['format'] != FORMAT:
      raise KeyError(about['format'])
  except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} is not a file of recorded examples, or is damaged: {error}') from error

  def loader(split: str):
    def load(vocabulary: Vocabulary, lengths: Lengths) -> list[Example]:
      _check_compatible(path, about, vocabulary, lengths)
      return _examples(arrays, about, split)

    return load

  return Task(
    name=about['task'],
    splits={split: loader(split) for split in about['texts']},
    labels=None if about['labels'] is None else tuple(about['labels']),
    metrics=tuple(about['metrics']),
    about=about['about'],
    words=about.get('words'),
    columns=about.get('columns'),
  )


def _text(example: Example) -> dict[str, Any]:
  return {
    'inputs': example.inputs_text,
    'targets': example.targets_text,
    'label': example.label,
    'fields': dict(example.fields),
    'task': example.task,
  }


def _write(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
      part = pathlib.Path(file.name)
      try:
        np.savez_compressed(file, allow_pickle=False, **dict(arrays))
        file.flush()
        os.fsync(file.fileno())
      except BaseException:
        part.unlink()
        raise
    part.chmod(0o644)
    part.replace(path)
  except OSError as error:
    raise UserError(f'Cannot write {path}: {error.strerror}.') from error


def _check_compatible(
  path: pathlib.Path, about: Mapping[str, Any], vocabulary: Vocabulary, lengths: Lengths
) -> None:
  if vocabulary.sha256 != about['vocabulary']:
    raise UserError(
      f'{path} was recorded with the vocabulary {about["vocabulary"][:12]}, but the model has '
      f'{vocabulary.sha256[:12]}; record the task again with the vocabulary of this model.'
    )
  if vocabulary.extra_ids != about.get('extra_ids', vocabulary.extra_ids):
    raise UserError(
      f'{path} was recorded with a vocabulary of {about["extra_ids"]} added sentinels, and the '
      f'model has {vocabulary.extra_ids}: their ids differ. Record the task again.'
    )
  for side, length in lengths._asdict().items():
    if length < about['lengths'][side]:
      raise UserError(
        f'{path} was recorded with {side} of {about["lengths"][side]} tokens, more than the '
        f'{length} asked for; record it again, or set a higher length.',
        [f'{side.removesuffix("s")}_length'],
      )


def _examples(
  arrays: Mapping[str, np.ndarray], about: Mapping[str, Any], split: str
) -> list[Example]:
  sides = [
    np.split(arrays[f'{split}/{side}'], arrays[f'{split}/{side}_end'][:-1])
    for side in ('inputs', 'targets')
  ]
  return [
    Example(
      inputs=inputs,
      targets=targets,
      inputs_text=text['inputs'],
      targets_text=text['targets'],
      label=text['label'],
      fields=text['fields'],
      task=text['task'],
    )
    for inputs, targets, text in zip(*sides, about['texts'][split], strict=True)
  ]
