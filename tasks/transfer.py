"""Training on one task and evaluating on others: languages, domains, sets of the same format.

`sib200.eng_Latn:all` trains on English and evaluates on each language; `mrqa.SQuAD:all` does the
same with domains; `squad:xquad`, `copa:xcopa` and `mnli:xnli.de,xnli.sw` name other sets.
"""

import dataclasses
from collections.abc import Callable

from prompt_jax.data.example import Task
from prompt_jax.data.mixture import evaluation_loader
from prompt_jax.errors import UserError
from prompt_jax.tasks import catalogue

Find = Callable[[str], Task]
ALL = 'all'


def is_transfer(name: str) -> bool:
  return ':' in name


def transfer_task(name: str, find: Find) -> Task:
  """A task whose test split is those of several tasks, of which one was trained on.

  Training and validation splits are the source's: the others are not seen before the end.

  Args:
    name: "SOURCE:TARGETS"; targets are separated by commas: names of tasks, variants of the
      source, a set (all its variants that are there), or "all" for the variants of the source.
    find: from a name to its task.

  Raises:
    UserError: no such task, a source without a training split, or labels that differ.
  """
  start, _, targets = name.partition(':')
  source = find(start)
  if 'train' not in source.splits:
    raise UserError(
      f'{start} has no training split to transfer from; it has {", ".join(source.splits)}.'
    )
  parts = {source.name: source}
  for target in targets.split(','):
    for other in _named(start, target.strip(), find):
      parts.setdefault(other.name, other)
  if len(parts) == 1:
    raise UserError(f'{name} names no task to transfer to.')
  for part in parts.values():
    if part.labels != source.labels:
      raise UserError(
        f'{source.name} answers with {_words(source)}, but {part.name} with {_words(part)}: a '
        'prompt of one cannot be measured on the other.'
      )
  whole = {s: source.splits[s] for s in ('train', 'validation') if s in source.splits}
  return dataclasses.replace(
    source,
    name=name,
    splits={**whole, 'test': evaluation_loader(tuple(parts.values()))},
    parts=tuple(parts.values()),
    source=source.name,
    about=f'trained on {source.name}, measured on {", ".join(parts)}',
  )


def _named(start: str, target: str, find: Find) -> list[Task]:
  """The tasks that a target stands for."""
  prefix = 'taskless_' if start.startswith('taskless_') else ''
  base = start.removeprefix(prefix).partition('.')[0]
  found = catalogue.SETS.get(base)
  if found is not None and target in found.variants:
    return [find(f'{prefix}{base}.{target}')]
  stem = base if target == ALL else target.removeprefix(prefix)
  whole = catalogue.SETS.get(stem)
  if whole is None or not whole.variants:
    if target == ALL:
      raise UserError(f'{base} has no variants, so there is no {start}:{ALL}; name other tasks.')
    # Without the task's name where the source is: a prompt has seen no other form.
    return [find(f'{prefix}{target.removeprefix(prefix)}')]
  tasks, absent = [], None
  for variant in whole.variants:
    try:
      tasks.append(find(f'{prefix}{stem}.{variant}'))
    except UserError as error:  # not every language has been fetched
      absent = absent or error
  if not tasks:
    assert absent is not None
    raise absent
  return tasks


def _words(task: Task) -> str:
  return 'free text' if task.labels is None else ', '.join(task.labels)
