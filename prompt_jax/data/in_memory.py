"""Rows in memory as a table: lists, columns, pandas data frames, data sets of the library datasets.

pandas and datasets are not imported here: who passes one of their objects has imported them.
"""

import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_jax.data import hub
from prompt_jax.data.table import Table, TableRow, fail

PAIR = ('text', 'label')  # the columns of rows that have no names


def memory_table(data: Any, split: str) -> Table:
  """Rows as `read_table` has them; rows are numbered from 1.

  Args:
    data: one of
      a sequence of mappings, column -> value;
      a sequence of (text, label) pairs;
      a mapping of columns, name -> sequence of values;
      a `pandas.DataFrame`, whose missing values become None;
      a `datasets.Dataset`, whose class labels get their names.
    split: what the rows are for, in messages.

  Raises:
    UserError: none of these, no rows, or columns of unlike lengths.
  """
  path = pathlib.Path(f'{split} rows')
  pandas, datasets = sys.modules.get('pandas'), sys.modules.get('datasets')
  if datasets is not None and isinstance(data, datasets.Dataset):
    return hub.dataset_table(data, path)
  if pandas is not None and isinstance(data, pandas.DataFrame):
    whole = data.astype(object).where(data.notna(), None)
    data = {str(name): whole[name].tolist() for name in whole.columns}
  rows = _of_columns(path, data) if isinstance(data, Mapping) else _of_rows(path, data)
  if not rows:
    fail(path, None, 'there are none; a task needs at least one example')
  columns = tuple(dict.fromkeys(name for row in rows for name in row.values))
  return Table(path, columns, rows)


def _of_columns(path: pathlib.Path, data: Mapping[str, Sequence[Any]]) -> list[TableRow]:
  lengths = {name: len(values) for name, values in data.items()}
  if len(set(lengths.values())) > 1:
    sizes = ', '.join(f'{name} {n}' for name, n in lengths.items())
    fail(path, None, f'the columns have different lengths: {sizes}')
  names = list(data)
  values = zip(*data.values(), strict=True)
  return [_row(i, dict(zip(names, v, strict=True))) for i, v in enumerate(values, 1)]


def _of_rows(path: pathlib.Path, data: Any) -> list[TableRow]:
  if not isinstance(data, Iterable):
    fail(path, None, f'{type(data).__name__} is no data: give a list of rows, or a file by name')
  found = []
  for number, row in enumerate(data, 1):
    if isinstance(row, Mapping):
      found.append(_row(number, dict(row)))
    elif isinstance(row, Sequence) and not isinstance(row, str) and len(row) == len(PAIR):
      found.append(_row(number, dict(zip(PAIR, row, strict=True))))
    else:
      fail(path, number, f'{row!r} is neither a mapping of columns nor a (text, label) pair')
  return found


def _row(number: int, values: Mapping[str, Any]) -> TableRow:
  plain = {str(k): v.item() if isinstance(v, np.generic) else v for k, v in values.items()}
  return TableRow(number, plain)
