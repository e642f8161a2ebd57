"""`prompt-jax eval`: the scores of what was tuned, or of the bare model, on one split."""

import argparse
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from prompt_jax.cli import config, report, tuned
from prompt_jax.cli.compilation_cache import use as keep_compiled
from prompt_jax.cli.device import choose as choose_device
from prompt_jax.data.example import Example, Lengths, Task
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError, unknown
from prompt_jax.evaluation import suite
from prompt_jax.evaluation.evaluator import Method
from prompt_jax.evaluation.report import progress, write_predictions
from prompt_jax.inference.score import Normalize

# Where neither a flag nor a prompt file says otherwise.
LENGTHS = Lengths(128, 64)


def run(args: argparse.Namespace) -> None:
  config.load(args, evaluate)()


def evaluate(
  *,
  model: str | None,
  vocabulary: str | None,
  prompt_file: str | None,
  choose_task: Callable[..., Task],
  split: str | None,
  method: Method | None,
  normalize: Normalize,
  output: str | None,
  batch_size: int,
  input_length: int | None,
  target_length: int | None,
  device: str,
  compilation_cache: str,
  dtype: str | None,
) -> None:
  """Measures, prints a table, and writes scores and predictions if a folder is given.

  Args:
    model: see `load_backbone`; None for the one the prompt file names, else "embedded".
    vocabulary: see `load_backbone`; None for the one the prompt file names, if any.
    prompt_file: a prompt or tuned weights; None for the bare model.
    choose_task: `data.choose`; a file's labels are those that the prompt was tuned on.
    split: None for test, else validation, whichever has labels.
    method: see `Evaluator`.
    normalize: see `Evaluator`.
    output: folder for results.json and predictions.jsonl.
    batch_size: examples at once.
    input_length: most tokens of an input; None as in training.
    target_length: most tokens of a target; None as in training.
    device: see `cli.device`.
    compilation_cache: see `cli.compilation_cache`.
    dtype: see `load_backbone`.
  """
  console, folder = Console(), pathlib.Path(output) if output else None
  keep_compiled(compilation_cache, choose_device(device))
  if folder and os.path.exists(folder / 'metrics.jsonl'):
    raise UserError(
      f'The folder {output} holds a training run, whose results would be replaced. Give another '
      f'--output, such as {folder / "eval"}.'
    )
  ready = tuned.load(model, prompt_file, dtype, vocabulary)
  task = choose_task(**_labels_of(ready.metadata))
  lengths = lengths_of(ready, input_length, target_length)
  words = ready.backbone.vocabulary
  split, examples = _split(task, split, words, lengths, output)
  evaluator = suite.evaluator(
    ready.model,
    words,
    task,
    max_target_length=lengths.targets,
    method=method,
    batch_size=batch_size,
    normalize=normalize,
    task_ids=_task_ids(ready, task),
  )
  with progress(len(examples), f'{task.name} {split}', console) as advance:
    scores, predictions = evaluator(ready.variables, examples, advance)

  name = prompt_file or f'{ready.backbone.name}, untuned'
  rows = [report.Row(str(name), [scores])]
  if folder:
    config.record(folder)
    report.write(folder / 'results.json', rows, task=task.name, split=split)
    write_predictions(folder / 'predictions.jsonl', predictions)
  report.show(
    rows, f'{task.name}, {len(examples)} {split} examples, in percent', console, task.parts
  )


def _task_ids(ready: tuned.Tuned, task: Task) -> dict[str, int] | None:
  """Which prompt each task has; None where all have the same.

  Raises:
    UserError: a task that a prompt of several tasks was not trained on.
  """
  if ready.model.prompt is None or 'task_id' not in ready.model.prompt.depends_on:
    return None
  known = {name: i for i, name in enumerate(ready.metadata['tasks'])}
  for part in task.parts or (task,):
    if part.name not in known:
      raise unknown('task of this prompt', part.name, known, 'It has a prompt for those alone.')
  return known


def _split(
  task: Task, named: str | None, vocabulary: Vocabulary, lengths: Lengths, output: str | None
) -> tuple[str, Sequence[Example]]:
  """The split that is named, or the first that can be judged, and its examples."""
  if named is not None and named not in task.splits:
    raise unknown(f'split of {task.name!r}', named, task.splits)
  for split in [named] if named else [s for s in ('test', 'validation') if s in task.splits]:
    examples = task.load(split, vocabulary, lengths)
    if task.judges(examples) or (named and output):
      return split, examples
  if named:
    raise UserError(
      f'The {named} split of {task.name!r} has no labels, so there is no score. Give another '
      '--split, or --output DIR for the predictions alone.'
    )
  raise UserError(
    f'The task {task.name!r} has {", ".join(task.splits)}, of which none but train has labels; '
    'give --split.'
  )


def _labels_of(metadata: Mapping[str, Any]) -> dict[str, Any]:
  """The labels that a prompt was tuned on, in their order, as arguments of `data.choose`.

  Without those that a gin binding gives: a prompt may be asked for other words than its own.
  """
  known = {'labels': metadata.get('labels')}
  if words := metadata.get('words'):
    label_of = {word: label for label, word in words.items()}
    known = {'labels': [label_of[word] for word in metadata['labels']], 'words': words}
  return {name: value for name, value in known.items() if not config.is_set(f'choose.{name}')}


def lengths_of(ready: tuned.Tuned, inputs: int | None, targets: int | None) -> Lengths:
  """What was given, else what the prompt was trained with."""
  return Lengths(
    inputs or ready.metadata.get('input_length', LENGTHS.inputs),
    targets or ready.metadata.get('target_length', LENGTHS.targets),
  )
