"""Which columns of a table are read: those that are named, else those with usual names."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, NoReturn

from prompt_jax.data.table import Table, fail
from prompt_jax.errors import UserError, unknown

# Usual names of columns. Where two of them may be the same thing, the user is asked.
TEXT_NAMES = ('text', 'sentence', 'review', 'comment', 'content', 'utterance', 'document', 'body')
LABEL_NAMES = ('label', 'category', 'class', 'sentiment', 'intent', 'topic', 'labels')
INPUT_NAMES = ('inputs', 'input', 'source', 'question')
TARGET_NAMES = ('targets', 'target', 'output', 'answer', 'summary', 'completion')
# Usual names of a text that is read together with another one, as in NLI and question answering.
FURTHER_NAMES = (
  'premise', 'hypothesis', 'passage', 'context', 'paragraph', 'query',
  *(f'{name}{n}' for name in ('text', 'sentence', 'question') for n in ('1', '2', '_a', '_b')),
)  # fmt: skip


class ColumnChoice(NamedTuple):
  """Which columns are read; several inputs are joined as T5 does ("premise: ... hypothesis: ...").

  `kind` is 'label' where the targets are a closed set of labels, 'text' where they are free.
  """

  inputs: tuple[str, ...]
  targets: str
  kind: Literal['label', 'text']


def choose_columns(
  table: Table,
  text: str | Sequence[str] | None = None,
  label: str | None = None,
  inputs: str | Sequence[str] | None = None,
  targets: str | None = None,
  like: ColumnChoice | None = None,
) -> ColumnChoice:
  """The columns given, and for those not given the ones of `like`, or with usual names.

  Args:
    table: whose columns they are.
    text: column or columns of the text to be labelled.
    label: column of the label.
    inputs: column or columns of the inputs of a text-to-text task, instead of `text`.
    targets: column of the targets of a text-to-text task, instead of `label`.
    like: the columns that a prompt was tuned on. Several inputs are joined under their names and
      must be there; a single one is read without its name, and may have another.

  Raises:
    UserError: no usual name, or several, so that a guess would be one.
  """
  if (text or label) and (inputs or targets):
    raise UserError(
      'Give either a text and a label column or an inputs and a targets column, not some of both.'
    )
  kind = _kind(table, bool(text or label), bool(inputs or targets), like)
  names, role, argument = (LABEL_NAMES, label, 'label') if kind == 'label' else (
    TARGET_NAMES, targets, 'targets'
  )  # fmt: skip
  same = like is not None and like.kind == kind and like.targets in table.columns
  target = role or (like.targets if like and same else _guess_target(table, names, argument))
  given = several(text if kind == 'label' else inputs)
  argument = 'text' if kind == 'label' else 'inputs'
  return ColumnChoice(given or _inputs(table, argument, target, like), target, kind)


def choose_inputs(
  table: Table, column: str | Sequence[str] | None = None, like: ColumnChoice | None = None
) -> tuple[str, ...]:
  """The columns of a table without targets, found as by `choose_columns`."""
  names = several(column) or _inputs(table, 'text', None, like)
  need(table, names)
  return names


def need(table: Table, columns: Sequence[str], remedy: str = '') -> None:
  """Refuses a table that lacks one of the columns."""
  remedy = remedy or 'Every file of a task needs the same columns.'
  for column in columns:
    if column not in table.columns:
      fail(table.path, 1, str(unknown('column', column, table.columns, remedy)))


def several(columns: str | Sequence[str] | None) -> tuple[str, ...]:
  """'premise,hypothesis' or a list of names -> a tuple."""
  if columns is None:
    return ()
  parts = columns.split(',') if isinstance(columns, str) else columns
  return tuple(part.strip() for part in parts)


def _kind(
  table: Table, labelled: bool, text_to_text: bool, like: ColumnChoice | None
) -> Literal['label', 'text']:
  """What the targets are, by the columns that are given, else those of `like`, else those there."""
  if labelled or text_to_text:
    return 'label' if labelled else 'text'
  if like:
    return like.kind
  labels, targets = (_named(table, names) for names in (LABEL_NAMES, TARGET_NAMES))
  if labels and targets:
    fail(
      table.path,
      1,
      f'columns {", ".join(table.columns)} fit both text/label and inputs/targets; name the '
      'columns to use',
      ['text', 'label', 'inputs', 'targets'],
    )
  return 'text' if targets else 'label'


def _named(table: Table, names: Sequence[str]) -> list[str]:
  """The columns with one of the names, in any case, in their order."""
  return [column for column in table.columns if column.lower() in names]


def _guess_target(table: Table, usual: Sequence[str], argument: str) -> str:
  found = _named(table, usual)
  if len(found) == 1:
    return found[0]
  if not found:
    _fail_unnamed(table, usual, argument)
  fail(
    table.path,
    1,
    f'{_have(table)}: {" or ".join(found)} may be the {argument}; say {argument}=NAME',
    [argument],
  )


def _inputs(
  table: Table, argument: str, target: str | None, like: ColumnChoice | None
) -> tuple[str, ...]:
  """The columns of `like`, or the only one that may be a text, other than the target."""
  if like and len(like.inputs) > 1:
    need(table, like.inputs, 'The prompt was tuned on these columns under these names.')
  if like and {*like.inputs} <= {*table.columns} - {target}:
    return like.inputs
  usual = TEXT_NAMES + INPUT_NAMES if argument == 'text' else INPUT_NAMES + TEXT_NAMES
  found = [c for c in _named(table, usual + FURTHER_NAMES) if c != target]
  if len(found) == 1 and found[0].lower() in usual:
    return (found[0],)
  if not found:
    _fail_unnamed(table, usual, argument)
  both = f' (or {argument}={",".join(found)})' if len(found) > 1 else ''
  fail(
    table.path,
    1,
    f'{_have(table)}: {" or ".join(found)} may be the {argument}; say {argument}=NAME{both}',
    [argument],
  )


def _have(table: Table) -> str:
  return f'columns {", ".join(repr(c) for c in table.columns)}'


def _fail_unnamed(table: Table, usual: Sequence[str], argument: str) -> NoReturn:
  fail(
    table.path,
    1,
    f'{_have(table)}: none has a usual name for the {argument} ({", ".join(usual)}); say '
    f'{argument}=NAME, or add a first line that names the columns',
    [argument],
  )
