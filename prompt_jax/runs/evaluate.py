"""`prompt-jax eval`: the scores of what was tuned, or of the bare model, on one split."""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console

from prompt_jax import loading
from prompt_jax.configuration import config
from prompt_jax.data.example import Example, Lengths, Task
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError, unknown
from prompt_jax.evaluation.bootstrap import LEVEL
from prompt_jax.evaluation.comparison import described
from prompt_jax.evaluation.evaluator import Method
from prompt_jax.evaluation.predictions import progress_bar, write_predictions
from prompt_jax.inference.score import Normalize
from prompt_jax.loading import BaseModel
from prompt_jax.runs import evaluation_table, score_table, several
from prompt_jax.runs.devices import Devices
from prompt_jax.runtime import processes

# Where neither a flag nor a prompt file says otherwise.
LENGTHS = Lengths(128, 64)


def evaluate(
  *,
  base: BaseModel,
  devices: Devices,
  prompt_file: str | Sequence[str] | None,
  choose_task: Callable[..., Task],
  split: str | None,
  method: Method | None,
  normalize: Normalize,
  resamples: int,
  output: str | None,
  batch_size: int,
  input_length: int | None,
  target_length: int | None,
) -> None:
  """Measures, prints a table, and writes scores and predictions if a folder is given.

  Args:
    base: the model.
    devices: where to compute.
    prompt_file: a prompt or tuned weights, or several prompts of one model; None for the bare
      model.
    choose_task: `data.choose`; a file's labels are those that the prompt was tuned on.
    split: None for test, else validation, whichever has labels.
    method: see `Evaluator`.
    normalize: see `Evaluator`.
    resamples: of the bootstrap that gives intervals; 0 for none.
    output: folder for results.json and predictions.
    batch_size: examples at once.
    input_length: most tokens of an input; None as in training.
    target_length: most tokens of a target; None as in training.
  """
  console = Console(quiet=not processes.is_first())
  folder = pathlib.Path(output) if output else None
  placement = devices.start()
  processes.broadcast(lambda: _check(folder, resamples))
  files = [prompt_file] if isinstance(prompt_file, str) else list(prompt_file or ())
  loaded = loading.load_all(base, files, placement)
  task = several.task_of_all(lambda m: choose_task(**_labels_of(m)), loaded, files)
  lengths = several.longest([lengths_of(r, input_length, target_length) for r in loaded])
  split, examples = _split(task, split, loaded[0].backbone.vocabulary, lengths, output)
  task_ids = [_task_ids(ready, task) for ready in loaded]
  groups = several.groups(loaded, task_ids)
  with progress_bar(len(examples) * len(groups), f'{task.name} {split}', console) as advance:
    judge, scored = several.evaluate(
      loaded,
      groups,
      task,
      task_ids,
      examples,
      advance,
      max_target_length=lengths.targets,
      method=method,
      batch_size=batch_size,
      normalize=normalize,
      placement=placement,
    )

  names = several.names(files) or [f'{loaded[0].backbone.name}, untuned']
  found = dict(zip(names, scored, strict=True))
  joint = several.together(judge, examples, scored) if len(files) > 1 else {}
  # One of several processes is enough for the rest, and the others wait for it.
  processes.broadcast(
    lambda: _conclude(judge, found, joint, task, split, examples, files, resamples, folder, console)
  )


def _conclude(
  judge: several.Judge,
  found: Mapping[str, several.Scored],
  joint: Mapping[str, several.Scored],
  task: Task,
  split: str,
  examples: Sequence[Example],
  files: Sequence[str],
  resamples: int,
  folder: pathlib.Path | None,
  console: Console,
) -> None:
  """The table, with intervals, of every prompt and of all together; and the files."""
  known = lambda name, s: evaluation_table.system(
    name, judge, examples, *s, resamples=resamples, calibrated=name != several.VOTE
  )
  systems = [known(*item) for item in found.items()]
  if joint:
    systems += several.mean_and_best(systems, task)
    systems += [known(*item) for item in joint.items()]
  if folder:
    config.record(folder)
    _write(folder, systems, found, joint, task, split, files, resamples)
  title = f'{task.name}, {len(examples)} {split} examples, in percent'
  if any(s.intervals for s in systems):
    title += f' ({100 * LEVEL:.0f} % intervals of {resamples} resamples)'
  evaluation_table.show(systems, title, console, task.parts)


def _check(folder: pathlib.Path | None, resamples: int) -> None:
  """Refuses what would be told only after the work is done."""
  if resamples < 0:
    raise UserError(f'RESAMPLES is {resamples}; expected a number of resamples, or 0 for none.')
  if folder and os.path.exists(folder / 'metrics.jsonl'):
    raise UserError(
      f'The folder {folder} holds a training run, whose results would be replaced. Give another '
      f'--output, such as {folder / "eval"}.'
    )


def _write(
  folder: pathlib.Path,
  systems: Sequence[evaluation_table.System],
  found: Mapping[str, several.Scored],
  joint: Mapping[str, several.Scored],
  task: Task,
  split: str,
  files: Sequence[str],
  resamples: int,
) -> None:
  """results.json, and the predictions of every prompt and of all together."""
  score_table.write_scores(
    folder / 'results.json',
    [score_table.SystemScores(s.name, [s.scores]) for s in systems],
    task=task.name,
    split=split,
    prompts=list(files),
    tasks=described(task),
    resamples=resamples,
    level=LEVEL,
    **evaluation_table.facts(systems),
  )
  for number, (_, predictions) in enumerate(found.values(), 1):
    name = f'predictions-{number}.jsonl' if joint else 'predictions.jsonl'
    write_predictions(folder / name, predictions)
  for name, (_, predictions) in joint.items():
    write_predictions(folder / f'{several.FILES[name]}.jsonl', predictions)


def _task_ids(ready: loading.Tuned, task: Task) -> dict[str, int] | None:
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
    if task.has_answers(examples) or (named and output):
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


def lengths_of(ready: loading.Tuned, inputs: int | None, targets: int | None) -> Lengths:
  """What was given, else what the prompt was trained with."""
  return Lengths(
    inputs or ready.metadata.get('input_length', LENGTHS.inputs),
    targets or ready.metadata.get('target_length', LENGTHS.targets),
  )
