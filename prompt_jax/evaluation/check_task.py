"""`prompt-jax tasks check`: every stage of a task over a sample, and what comes out."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from prompt_jax.data.example import Example, Lengths, Task, encode_labels
from prompt_jax.data.splits import PERCENTILES, SplitStatistics, sample, split_statistics
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError
from prompt_jax.evaluation import findings, metrics


def check_task(
  task: Task, vocabulary: Vocabulary, lengths: Lengths, most: int, console: Console
) -> None:
  """Reads, formats, tokenises and judges, and prints a table of the splits.

  Args:
    task: what to check; of several tasks each part.
    vocabulary: the model's.
    lengths: the most tokens of inputs and targets.
    most: examples of each split that are looked at.
    console: to print on.

  Raises:
    UserError: what any stage refuses; label words of the same tokens among it.
  """
  for part in task.parts or (task,):
    _check_one(part, vocabulary, lengths, most, console)


def _check_one(
  task: Task, vocabulary: Vocabulary, lengths: Lengths, most: int, console: Console
) -> None:
  if task.labels is not None:
    ids = encode_labels(task.labels, vocabulary, lengths.targets)
    longest = max(len(i) for i in ids)
    console.print(
      f'{len(ids)} label words of different tokens, at most {longest} each', highlight=False
    )
  order = ', '.join(map(str, PERCENTILES))
  table = Table(title=f'{task.name}; of tokens the percentiles {order}', title_justify='left')
  table.add_column('', no_wrap=True)
  columns: dict[str, SplitStatistics] = {}
  train: set[str] = set()
  whole: dict[str, Sequence[Example]] = {}
  for split in sorted(task.splits, key=lambda s: s != 'train'):
    whole[split] = loaded = task.load(split, vocabulary, lengths)
    if not loaded:
      raise UserError(f'The {split} split of {task.name!r} has no examples.')
    chosen = sample(loaded, most)
    columns[f'{split} ({len(loaded)})'] = split_statistics(chosen, vocabulary, lengths, train)
    if split == 'train':
      train = {e.inputs_text for e in loaded}
    if task.score is None and task.has_answers(chosen):
      _score_targets(task, [e for e in chosen if task.labels is None or e.label is not None])
  for name in columns:
    table.add_column(name, justify='right')
  for name, cells in _rows(list(columns.values()), lengths):
    table.add_row(name, *cells)
  console.print(table, markup=False)
  findings.warn(task, whole, vocabulary, lengths.targets)


def _score_targets(task: Task, examples: list) -> None:
  """The metrics of the right answers: whatever they refuse is found before a model has run."""
  if task.labels is None:
    targets = [e.fields.get('answers', e.targets_text) for e in examples]
    given = [task.postprocess(e.targets_text) for e in examples]
  else:
    targets = given = [e.label for e in examples]
  groups = [e.fields.get('group') for e in examples]
  metrics.compute(task.metrics, targets, given, groups, len(task.labels or ()))


def _rows(found: list[SplitStatistics], lengths: Lengths) -> list[tuple[str, list[str]]]:
  percent = lambda share: f'{100 * share:.1f} %'
  rows = [
    ('examples looked at', [str(f.examples) for f in found]),
    ('tokens of inputs', [', '.join(map(str, f.inputs)) for f in found]),
    (f'longer than {lengths.inputs}', [percent(f.cut_inputs) for f in found]),
    ('tokens of targets', [', '.join(map(str, f.targets)) for f in found]),
    (f'longer than {lengths.targets}', [percent(f.cut_targets) for f in found]),
    ('unknown tokens', [percent(f.unknown) for f in found]),
    ('inputs repeated', [str(f.repeated) for f in found]),
    ('inputs of the training split', [str(f.seen) for f in found]),
  ]
  for label in dict.fromkeys(label for f in found for label in f.labels):
    shares = [f.labels.get(label, 0) / max(sum(f.labels.values()), 1) for f in found]
    rows.append((f'label {label}', [percent(share) for share in shares]))
  return rows
