"""Data sets as declarations: their text form, where their files are, and what the columns mean.

A set is read from a folder, in the form in which it was published or as JSON Lines
(`{split}.jsonl[.gz]`, `{split}.{variant}.jsonl[.gz]`), or else through tensorflow-datasets. Nothing
is downloaded here: where the files are absent, the error says how to get them.
"""

import collections
import dataclasses
import pathlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from prompt_jax.data.example import Task, TextExample, text_task
from prompt_jax.data.splits import held_out
from prompt_jax.errors import UserError, unknown
from prompt_jax.tasks import readers
from prompt_jax.tasks.formats import Format, RowValues

SPLITS = ('train', 'validation', 'test')
BadRows = Literal['refuse', 'skip']
# Columns that number the examples of a file.
IDS = ('id', 'idx')


@dataclasses.dataclass(frozen=True)
class DataSet:
  """One data set, in all its languages or domains ("variants").

  Attributes:
    form: its text form, on columns of our names.
    kind: "nli", "paraphrase", "sentiment", "topic", "qa", "choice", "tagging", "summarisation",
      "translation", "data_to_text", "generation", "intent", "coreference", "acceptability".
    about: what it is, who made it, its licence where we know it.
    train_form: of the training split, where that is another (WSC's).
    variants: languages or domains; empty for a set that has but one.
    place: its folder within the folder of all; None for its name.
    files: split -> the published file below `place`, with {variant}; several for alternatives.
    read: reads one of them.
    columns: our name of a column -> its names in the files; others stay as they are.
    words: label as in a file -> the word of `form`.
    keep: (row, variant) -> whether a row of a published file belongs to the variant.
    together: in the splits that are evaluated, rows that agree in this column are one example
      with several references.
    get: a command that brings the published files into `place`.
    tfds: its name in tensorflow-datasets, with {variant}.
    tfds_columns: as `columns`, of the rows there.
    tfds_splits: our name of a split -> its name there.
  """

  form: Format
  kind: str
  about: str
  train_form: Format | None = None
  variants: tuple[str, ...] = ()
  place: str | None = None
  files: Mapping[str, str | tuple[str, ...]] = dataclasses.field(default_factory=dict)
  read: readers.Reader = readers.table
  columns: Mapping[str, str | tuple[str, ...]] = dataclasses.field(default_factory=dict)
  words: Mapping[str, str] = dataclasses.field(default_factory=dict)
  keep: Callable[[RowValues, str], bool] | None = None
  together: str | None = None
  get: str = ''
  tfds: str = ''
  tfds_columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
  tfds_splits: Mapping[str, str] = dataclasses.field(default_factory=lambda: {s: s for s in SPLITS})

  @property
  def named(self) -> bool:
    """Whether the inputs begin with the task's name, which the taskless form leaves out."""
    return not self.form.template.startswith('question:')


def listed(names: str) -> tuple[str, ...]:
  """'de en fr' as a tuple."""
  return tuple(names.split())


def folder_task(
  name: str, found: DataSet, folder: str, taskless: bool = False, bad: BadRows = 'refuse'
) -> Task:
  """A data set in a folder as a task.

  A data set without a validation file gets a tenth of its training file, stratified by label.

  Args:
    name: of the data set; with a variant "name.variant" ("sib200.swh_Latn").
    found: the data set.
    folder: where the folders of the data sets are.
    taskless: leave out the task's name at the beginning of the inputs, as prompt tuning does.
    bad: what to do with a row that cannot be read: "refuse" all, or "skip" it with a warning.

  Raises:
    UserError: no file for it.
  """
  base, _, variant = name.partition('.')
  check_variant(base, found, variant)
  place = pathlib.Path(folder) / (found.place or base)
  sources = rows_of(name, found, folder)
  if not sources:
    raise _absent(name, found, place, variant)
  form = found.form
  if form.labels == ():
    form = _with_labels(form, next(iter(sources.values())))
  bare = taskless and found.named

  def read(split: str) -> list[TextExample]:
    drawn = 'validation' not in sources and split in ('train', 'validation')
    rows = sources['train' if drawn else split]
    if found.together and split != 'train':
      rows = _gathered(rows, found.together)
    chosen = found.train_form if found.train_form and split == 'train' else form
    examples = read_examples(rows, chosen, bare, bad)
    return _drawn(examples, split) if drawn else examples

  splits = [*sources]
  if 'train' in sources and 'validation' not in sources:
    splits.append('validation')
  task = text_task(
    f'taskless_{name}' if bare else name,
    {split: (lambda split=split: read(split)) for split in splits},  # type: ignore[misc]
    form.labels,
    form.metrics,
    about=f'{found.about}; {place}: "{form.template}"',
  )
  return dataclasses.replace(task, right=form.right)


def rows_of(name: str, found: DataSet, folder: str) -> dict[str, 'RowReader']:
  """The rows of each split before they become examples: {split: what reads them}."""
  base, _, variant = name.partition('.')
  place = pathlib.Path(folder) / (found.place or base)
  sources = {split: _source(place, found, split, variant) for split in SPLITS}
  return {split: source for split, source in sources.items() if source}


def check_variant(base: str, found: DataSet, variant: str) -> None:
  """Refuses a variant that the set does not have, and none where it has several."""
  if variant and found.variants and variant not in found.variants:
    raise unknown(f'variant of {base}', variant, found.variants)
  if variant and not found.variants:
    raise UserError(f'{base} comes in one form alone; leave out ".{variant}".')
  if not variant and found.variants:
    raise UserError(f'{base} needs one of {", ".join(found.variants)}: {base}.{found.variants[0]}')


RowReader = Callable[[], Iterator[readers.LocatedRow]]


def _source(place: pathlib.Path, found: DataSet, split: str, variant: str) -> RowReader | None:
  """What reads the rows of a split; None where there is no file."""
  patterns = found.files.get(split, ())
  for pattern in (patterns,) if isinstance(patterns, str) else patterns:
    path = place / pattern.format(variant=variant)
    # Parallel texts: "train.en>train.de" are two files.
    if path.with_name(path.name.partition('>')[0]).exists():
      return lambda path=path: published(path, found, split, variant)  # type: ignore[misc]
  stem = f'{split}.{variant}' if variant else split
  for path in (place / f'{stem}.jsonl', place / f'{stem}.jsonl.gz'):
    if path.is_file():
      return lambda path=path: readers.table(path, split)  # type: ignore[misc]
  return None


def published(
  path: pathlib.Path, found: DataSet, split: str, variant: str
) -> Iterator[readers.LocatedRow]:
  """The rows of a published file under our names of columns and labels."""
  for row in found.read(path, split):
    values = renamed(row.values, found.columns)
    if isinstance(values.get('label'), str):
      values['label'] = found.words.get(values['label'], values['label'])
    if found.keep is None or found.keep(values, variant):
      yield readers.LocatedRow(row.where, values)


def renamed(row: RowValues, columns: Mapping[str, str | tuple[str, ...]]) -> dict[str, Any]:
  """The row with the columns of `columns` under our names."""
  values = dict(row)
  for ours, theirs in columns.items():
    names = (theirs,) if isinstance(theirs, str) else theirs
    name = next((n for n in names if n in row), None)
    if name is not None:
      values[ours] = row[name]
  return values


def read_examples(
  rows: RowReader, form: Format, taskless: bool, bad: BadRows = 'refuse'
) -> list[TextExample]:
  """The examples of the rows.

  Raises:
    UserError: a bad row, or two of one number, and `bad` is "refuse"; names the place.
  """
  done: list[TextExample] = []
  faults: list[str] = []
  seen: dict[Any, str] = {}
  for row in rows():
    try:
      _check_id(row, seen)
      written = form.examples(row.values, taskless)
    except KeyError as error:
      faults.append(f'{row.where}: no column {error}; this data set needs it')
    except ValueError as error:
      faults.append(f'{row.where}: {error}')
    except (TypeError, AttributeError, IndexError) as error:
      faults.append(f'{row.where}: a column holds what this data set never has there ({error})')
    else:
      done += [dataclasses.replace(e, source=row.where) for e in written]
      continue
    if bad == 'refuse':
      raise UserError(faults[0])
  if faults:
    warnings.warn(
      f'{len(faults)} bad rows are left out, {len(done)} examples are kept. The first: {faults[0]}',
      stacklevel=2,
    )
  return done


def _check_id(row: readers.LocatedRow, seen: dict[Any, str]) -> None:
  found = [row.values[name] for name in IDS if isinstance(row.values.get(name), str | int)]
  key = tuple(found)
  if key and key in seen:
    raise ValueError(f'the id {found[0]!r} stands at {seen[key]} already')
  seen[key] = row.where


def _gathered(rows: RowReader, column: str) -> RowReader:
  """RowReader that agree in `column` as one, with the references of all."""

  def gathered() -> Iterator[readers.LocatedRow]:
    groups: dict[str, list[readers.LocatedRow]] = collections.defaultdict(list)
    for row in rows():
      groups[str(row.values.get(column))].append(row)
    for group in groups.values():
      first = group[0]
      texts: list[str] = []
      for row in group:
        more = row.values['references']
        texts += [more] if isinstance(more, str) else more
      yield readers.LocatedRow(first.where, {**first.values, 'references': texts})

  return gathered


def _absent(name: str, found: DataSet, place: pathlib.Path, variant: str) -> UserError:
  have = sorted(p.name for p in place.glob('*')) if place.is_dir() else []
  want = f'train.{variant}.jsonl' if variant else 'train.jsonl'
  get = f' Get them: {found.get.replace("{variant}", variant)}' if found.get else ''
  named = [p if isinstance(p, str) else p[0] for p in found.files.values()]
  names = ', '.join(dict.fromkeys(p.format(variant=variant) for p in named))
  plain = f'{want} or {want}.gz, and so on for the other splits'
  return UserError(
    f'No files of {name} in {place}: expected {names or plain}{names and f" (or {plain})"}. '
    f'There are: {", ".join(have[:20]) or "none"}.{get}'
  )


def _with_labels(form: Format, rows: RowReader) -> Format:
  """Labels that are read from the training file, where there are too many for a table."""
  labels = {str(row.values.get('label', '')).replace('_', ' ') for row in rows()}
  return dataclasses.replace(form, labels=tuple(sorted(labels)))


def _drawn(examples: Sequence[TextExample], split: str) -> list[TextExample]:
  where = held_out(
    [e.inputs for e in examples], [e.label for e in examples], {'validation': 0.1}, seed=0
  )
  return [e for e, w in zip(examples, where, strict=True) if w == split]
