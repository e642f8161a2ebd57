"""`prompt-jax tasks`: lists the named tasks, and shows and checks their examples."""

import argparse
import itertools
import json
import textwrap

from rich.console import Console

from prompt_jax.checkpoints.backbone import vocabulary_of
from prompt_jax.data.example import Lengths, Task
from prompt_jax.data.recorded import record
from prompt_jax.data.vocabulary import ByteVocabulary, Vocabulary, load_vocabulary
from prompt_jax.errors import UserError, install
from prompt_jax.evaluation.check_task import check_task
from prompt_jax.runs.task_choice import choose
from prompt_jax.tasks import catalogue, data_set, denoising, find, transfer

# In bytes; long enough that nothing shown is truncated.
LENGTHS = Lengths(100_000, 100_000)
CHECK = 'check'
# Flags of a file of one's own, as in train.
FILES = ('data', 'validation', 'test', 'text', 'label', 'inputs', 'targets')


def run(args: argparse.Namespace) -> None:
  console = Console(highlight=False)
  checked = args.name[:1] == [CHECK]
  names = args.name[checked:]
  files = {name: getattr(args, name) for name in FILES}
  own = any(files.values())
  if len(names) > 1 or (checked and not names and not own):
    raise UserError(
      'Give one task, by name or as a file: prompt-jax tasks check NAME, or prompt-jax tasks check '
      '--data FILE.'
    )
  if not names and not own and args.record:
    raise UserError('--record needs the task: prompt-jax tasks NAME --record FILE')
  if not names and not own:
    _list(args.filter, console)
    return
  if args.filter:
    raise UserError(
      '--filter applies to the list of all tasks; leave out the task name or --filter.'
    )
  task = choose(names[0] if names else None, folder=args.folder, modules=args.module, **files)
  lengths = Lengths(args.input_length, args.target_length)
  if args.record:
    words = _vocabulary(args)
    record(args.record, task, list(task.splits), words, lengths)
    console.print(f'Recorded {", ".join(task.splits)} of {task.name} in {args.record}')
  elif checked:
    check_task(task, _vocabulary(args), lengths, args.sample, console)
  else:
    _show(names[0] if names else '', task, args, console)


def _vocabulary(args: argparse.Namespace) -> Vocabulary:
  """The given vocabulary, else that of the model."""
  return load_vocabulary(args.vocabulary) if args.vocabulary else vocabulary_of(args.model)


def _list(word: str | None, console: Console) -> None:
  """Lists all tasks, or those with the word in their name, kind, variants or description."""
  lines = {name: f'embedded  {make().about}' for name, make in find.EMBEDDED.items()}
  for name, found in catalogue.SETS.items():
    variants = f'  [{" ".join(found.variants)}]' if found.variants else ''
    star = '*' if found.tfds else ''
    lines[name] = f'{found.kind}{star}  {found.about}{variants}'
  for name in find.names():
    lines.setdefault(name, 'through tensorflow-datasets*')
  for name in denoising.NAMES:
    lines[name] = 'plain text  C4 or any text, without labels'
  chosen = {
    n: line for n, line in lines.items() if not word or word.lower() in f'{n} {line}'.lower()
  }
  if not chosen:
    raise UserError(f'No task has {word!r} in its name, kind, variants or description.')
  for name, line in chosen.items():
    console.print(f'{name}  {line}', soft_wrap=True, markup=False)
  if not word:
    console.print(
      '\nRead a data set from a folder in DIR: --task NAME --folder DIR. Those with * also come '
      f'through tensorflow-datasets ({install("seqio")}). taskless_NAME leaves out the name of the '
      'task in the inputs; NAME.VARIANT is a variant. Your own file: --data FILE',
      soft_wrap=True,
      markup=False,
    )


def _show(name: str, task: Task, args: argparse.Namespace, console: Console) -> None:
  """Labels, metrics and the first examples of each split, before and after preprocessing."""
  console.print(f'[bold]{task.name}[/bold]  {task.about}', soft_wrap=True)
  own = "the task's own" if task.score is not None else ', '.join(task.metrics)
  console.print(f'metrics: {own}')
  if task.labels:
    console.print(f'labels: {", ".join(task.labels)}', markup=False, soft_wrap=True)
  rows = _rows(name.removeprefix(find.TASKLESS), args.folder)
  for split in task.splits:
    examples = task.load(split, ByteVocabulary(), LENGTHS)
    console.print(f'\n{split}: {len(examples)} examples')
    for row in itertools.islice(rows[split]() if split in rows else (), args.examples):
      said = json.dumps(row.values, ensure_ascii=False)
      text = textwrap.shorten(said, 400, placeholder=' ...')
      console.print(f'  before ({row.where}): {text}', markup=False, soft_wrap=True)
    for example in examples[: args.examples]:
      text = textwrap.shorten(example.inputs_text, 300, placeholder=' ...')
      console.print(f'  {text}\n    -> {example.targets_text}', markup=False, soft_wrap=True)


def _rows(name: str, folder: str | None) -> dict[str, data_set.RowReader]:
  """The rows of a data set in a folder before preprocessing; {} for other sources."""
  found = catalogue.SETS.get(name.partition('.')[0])
  if folder is None or found is None or transfer.is_transfer(name):
    return {}
  return data_set.rows_of(name, found, folder)
