"""A user's own file or rows in memory as a task: text and label, or inputs and targets."""

import dataclasses
import functools
import json
import math
import os
import pathlib
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_jax.data import hub
from prompt_jax.data.columns import ColumnChoice, choose_columns, choose_inputs, need
from prompt_jax.data.example import Task, TextExample, text_task
from prompt_jax.data.in_memory import memory_table
from prompt_jax.data.splits import held_out
from prompt_jax.data.table import (
  Table,
  TableRow,
  fail,
  read_lines,
  read_table,
)
from prompt_jax.errors import UserError, unknown
from prompt_jax.features import COLUMNS

# Rows of a held-out part, about: a score on so many is known to two points.
MOST_HELD_OUT = 3000


def local_task(
  train: Any = None,
  *,
  validation: Any = None,
  test: Any = None,
  text: str | Sequence[str] | None = None,
  label: str | None = None,
  inputs: str | Sequence[str] | None = None,
  targets: str | None = None,
  labels: Sequence[str] | None = None,
  words: Mapping[str, str] | None = None,
  metrics: Sequence[str] | None = None,
  groups: bool = False,
  like: ColumnChoice | None = None,
  name: str | None = None,
  seed: int = 0,
  held_out_fraction: float = 0.1,
) -> Task:
  """A task from files of one's own, or from rows in memory.

  Without `validation` a tenth of `train` (at most `MOST_HELD_OUT` rows), stratified by label,
  becomes the validation split, and without `test` another tenth the test split (see
  `splits.held_out`); equal inputs never fall into two splits. With `validation` but no `test` the
  task has no test split. Without `train` the task has just the splits given: enough to measure a
  prompt.

  Args:
    train: training examples (.tsv, .csv, .jsonl, each also .gz), with a line of column names; or a
      data set of the hub (`hub.Name`), which brings its other splits where none are given; or rows
      in memory, see `in_memory.memory_table` (a `datasets.DatasetDict` brings its other splits).
    validation: examples to select a prompt by.
    test: examples for the final score.
    text: column or columns of the text to be labelled; None to guess from the usual names.
    label: column of the label.
    inputs: column or columns of the inputs of a text-to-text task, instead of `text`.
    targets: column of the targets of a text-to-text task, instead of `label`. A cell of JSON may be
      a list of right answers: the first is learned, any of them is right.
    labels: all labels, in the order of their indices; None for those of the first file, sorted.
    words: label -> the word or words the model writes for it; None to write labels as they stand.
    metrics: names of metrics; None for accuracy and macro F1, or exact match and BLEU for text.
    groups: whether the column "group" says which examples belong together, for metrics of groups.
    like: columns of the task that a prompt was tuned on, see `choose_columns`.
    name: of the task; None for the first file's, "rows" in memory.
    seed: of the draw of the held-out examples.
    held_out_fraction: share of each part that is drawn from `train`, at most `MOST_HELD_OUT` rows.

  Raises:
    UserError: a mistake in a file; names the file, the line and the remedy.
  """
  files = {'train': train, 'validation': validation, 'test': test}
  given = {split: data for split, data in files.items() if is_in_memory(data) or data}
  if not given:
    raise UserError('No data file given; a task needs at least one.')
  more = hub.splits_of(train) if _on_hub(train) and not hub.parse(train).split else {}
  if parts := _splits_in_memory(train):
    given = parts | {split: data for split, data in given.items() if split != 'train'}
  tables = {split: _table(file, split) for split, file in (given | more | given).items()}
  columns = choose_columns(next(iter(tables.values())), text, label, inputs, targets, like)
  # Splits of the hub whose labels are not public.
  for split in more.keys() - given.keys():
    if all(row.values.get(columns.targets) in (None, -1) for row in tables[split].rows):
      del tables[split]
  for split, table in tables.items():
    need(table, [*columns.inputs, columns.targets, *(['group'] if groups else [])])
    if _on_hub(table.path):
      tables[split] = _filled(table, [*columns.inputs, columns.targets])
  if columns.kind == 'label' and labels is None and 'f1' in (metrics or ()):
    raise UserError(
      'f1 is of one label, and nothing says which of these. Give labels in an order of which the '
      "second is that label, such as ['ham', 'spam'], or take f1_macro, the mean over all labels.",
      ['metrics', 'labels'],
    )
  first = next(iter(tables.values()))
  spoken = None
  if columns.kind == 'label':
    spoken = _words(labels or _labels(first, columns), words or {})
  splits = {s: _examples(table, columns, spoken, groups) for s, table in tables.items()}
  if 'train' in splits and 'validation' not in splits:
    drawn = ('validation',) if 'test' in splits else ('validation', 'test')
    fraction = min(held_out_fraction, MOST_HELD_OUT / len(splits['train']))
    splits |= _draw(first.path, splits['train'], drawn, fraction, seed)
  if metrics is None:
    metrics = ('exact_match', 'bleu') if spoken is None else ('accuracy', 'f1_macro')
  task = text_task(
    name or ('rows' if is_in_memory(next(iter(given.values()))) else _title(first.path)),
    {split: functools.partial(list, rows) for split, rows in splits.items()},
    None if spoken is None else tuple(spoken.values()),
    metrics,
    about=f'{first.path}: {" + ".join(columns.inputs)} -> {columns.targets}',
  )
  return dataclasses.replace(task, words=spoken if words else None, columns=columns._asdict())


def is_in_memory(data: object) -> bool:
  """Whether `data` are rows, and not the name of a file or of a data set."""
  return data is not None and not isinstance(data, str | os.PathLike)


def _splits_in_memory(data: Any) -> dict[str, Any]:
  """The splits of a `datasets.DatasetDict`, by our names; {} of anything else."""
  datasets = sys.modules.get('datasets')
  if datasets is None or not isinstance(data, datasets.DatasetDict):
    return {}
  return {name: data[name] for name in hub.SPLITS if name in data}


def _on_hub(name: object) -> bool:
  """Whether a data name refers to the hub."""
  return isinstance(name, str | os.PathLike) and str(name).startswith(hub.PREFIX)


def _table(data: Any, split: str | None = None) -> Table:
  if is_in_memory(data):
    return memory_table(data, split or 'input')
  return hub.hub_table(data, split) if _on_hub(data) else read_table(data)


def _filled(table: Table, columns: Sequence[str]) -> Table:
  """Without the rows that lack something, which nobody can fill in on the hub."""
  there = lambda value: not is_missing(value) and str(value).strip()
  rows = [row for row in table.rows if all(there(row.values[c]) for c in columns)]
  if not rows:
    fail(table.path, None, f'no row has all of {", ".join(columns)}')
  if len(rows) < len(table.rows):
    warnings.warn(
      f'{table.path}: {len(table.rows) - len(rows)} of {len(table.rows)} rows lack '
      f'{" or ".join(columns)} and are left out',
      stacklevel=2,
    )
  return table._replace(rows=rows)


def _title(path: pathlib.Path) -> str:
  if _on_hub(path):
    return hub.parse(str(path)).title
  return pathlib.Path(path.name.removesuffix('.gz')).stem


def local_inputs(
  path: str, column: str | Sequence[str] | None = None, like: ColumnChoice | None = None
) -> list[TextExample]:
  """Inputs without targets, to be classified or answered; as many as the file has rows.

  Args:
    path: a .txt file with one text a line, or a table, whose columns become `fields`. The text of
      a blank line is empty.
    column: the column or columns of a table; None to guess from the usual names.
    like: columns of the task that a prompt was tuned on, see `choose_columns`.

  Raises:
    UserError: a mistake in the file, or no text in it.
  """
  file = pathlib.Path(path)
  if file.name.removesuffix('.gz').endswith('.txt'):
    lines = enumerate(read_lines(file), 1)
    found = [TextExample(text.strip(), '', source=f'{file}:{n}') for n, text in lines]
    if not any(example.inputs for example in found):
      fail(file, None, 'the file holds no text')
    return found
  table = _table(path)
  names = choose_inputs(table, column, like)
  return [
    TextExample(_join(table, row, names), '', fields=row.values, source=f'{file}:{row.line}')
    for row in table.rows
  ]


def is_missing(value: Any) -> bool:
  """Whether a cell holds nothing: None, or NaN, by which pandas and NumPy mean the same."""
  return value is None or (isinstance(value, float) and math.isnan(value))


def _value(table: Table, row: TableRow, column: str) -> str:
  """The text of one cell; numbers and truth values of JSON as JSON writes them."""
  if column not in row.values:
    fail(table.path, row.line, f'no {column!r}; every row needs it')
  value: Any = row.values[column]
  if isinstance(value, str):
    written = value.strip()
  elif is_missing(value):
    written = ''
  elif isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
    written = json.dumps(value)
  else:
    kind = value if isinstance(value, float) else f'a {type(value).__name__}'
    fail(table.path, row.line, f'{column!r} is {kind}; expected text or a number')
  if not written:
    fail(table.path, row.line, f'{column!r} is empty; fill it in or delete the row')
  return written


def _join(table: Table, row: TableRow, columns: Sequence[str]) -> str:
  if len(columns) == 1:
    return _value(table, row, columns[0])
  return ' '.join(f'{column}: {_value(table, row, column)}' for column in columns)


def _tail(table: Table, row: TableRow, columns: Sequence[str]) -> str:
  """What stands behind the longest of several columns: that one is cut where all are too long."""
  if len(columns) < 2:
    return ''
  long = max(columns, key=lambda column: len(_value(table, row, column)))
  behind = columns[columns.index(long) + 1 :]
  return ''.join(f' {column}: {_value(table, row, column)}' for column in behind)


def _answers(table: Table, row: TableRow, column: str) -> list[str]:
  """The right answers of a cell: those of a list, or just its text."""
  value = row.values.get(column)
  if not isinstance(value, list):
    return [_value(table, row, column)]
  if not value:
    fail(table.path, row.line, f'{column!r} has no answers; fill them in or delete the row')
  return [_value(table, TableRow(row.line, {column: answer}), column) for answer in value]


def _labels(table: Table, columns: ColumnChoice) -> tuple[str, ...]:
  """The labels of the training file in alphabetical order, checked for being labels at all."""
  values = [_value(table, row, columns.targets) for row in table.rows]
  labels = tuple(sorted(set(values)))
  if len(labels) == 1:
    fail(
      table.path,
      None,
      f'every row has the {columns.targets} {labels[0]!r}; there is nothing to learn from one',
    )
  if len(labels) == len(values) and len(values) >= 20:
    fail(
      table.path,
      None,
      f'all {len(values)} values of {columns.targets!r} differ, so they look like free text; '
      'for a text-to-text task call the columns inputs and targets',
    )
  return labels


def _words(labels: Sequence[str], words: Mapping[str, str]) -> dict[str, str]:
  for label in words:
    if label not in labels:
      raise unknown('label in words', label, labels)
  return {label: words.get(label, label) for label in labels}


def _examples(
  table: Table, columns: ColumnChoice, spoken: Mapping[str, str] | None, groups: bool
) -> list[TextExample]:
  """The rows as examples; `spoken` is label -> word in the order of the label indices."""
  index = {label: i for i, label in enumerate(spoken or {})}
  read, done = {*columns.inputs, columns.targets}, []
  for row in table.rows:
    answers = [_value(table, row, columns.targets)] if spoken is not None else _answers(
      table, row, columns.targets
    )  # fmt: skip
    target = answers[0]
    if spoken is not None and target not in spoken:
      error = unknown('label', target, spoken, 'Correct it, or add training rows with it.')
      fail(table.path, row.line, str(error))
    fields: dict[str, Any] = {'group': _value(table, row, 'group')} if groups else {}
    if more := {k: v for k, v in row.values.items() if k not in read}:
      fields[COLUMNS] = more
    if isinstance(row.values[columns.targets], list):
      fields['answers'] = answers
    done.append(
      TextExample(
        inputs=_join(table, row, columns.inputs),
        targets=target if spoken is None else spoken[target],
        label=index.get(target),
        fields=fields,
        source=f'{table.path}:{row.line}',
        tail=_tail(table, row, columns.inputs),
      )
    )
  return done


def _draw(
  path: pathlib.Path,
  examples: list[TextExample],
  parts: Sequence[str],
  fraction: float,
  seed: int,
) -> dict[str, list[TextExample]]:
  if not 0 < fraction * len(parts) < 1:
    raise UserError(f'held_out_fraction is {fraction}; it must leave examples to train on.')
  inputs, labels = [e.inputs for e in examples], [e.label for e in examples]
  where = held_out(inputs, labels, dict.fromkeys(parts, fraction), seed)
  splits = {
    s: [e for e, w in zip(examples, where, strict=True) if w == s] for s in ('train', *parts)
  }
  for split, rows in splits.items():
    if not rows:
      fail(
        path,
        None,
        f'{len(examples)} rows with {len({e.inputs for e in examples})} different inputs are too '
        f'few to hold some out for {split}; add rows, or give files for validation and test',
      )
  return splits
