"""The scores of what was tuned, or of the bare model, on one split."""

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

from rich.console import Console

from prompt_jax import loading
from prompt_jax.checkpoints import on_disk
from prompt_jax.data.example import Example, Lengths, Task
from prompt_jax.data.splits import cut
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError, unknown
from prompt_jax.evaluation import findings
from prompt_jax.evaluation.bootstrap import LEVEL
from prompt_jax.evaluation.evaluator import Method
from prompt_jax.evaluation.predictions import progress_bar, write_predictions
from prompt_jax.evaluation.suite import f1_label, task_facts
from prompt_jax.features import in_file
from prompt_jax.inference.score import Normalize
from prompt_jax.loading import BaseModel, Devices
from prompt_jax.runs import joint_evaluation, score_table
from prompt_jax.runs.record import Record
from prompt_jax.runs.results import EvaluationResult, Scores, SystemScores
from prompt_jax.runs.setup import console_of
from prompt_jax.runs.task_choice import for_prompt
from prompt_jax.runtime import processes


def evaluate(
  *,
  base: BaseModel,
  devices: Devices,
  prompt_file: str | Sequence[str] | None,
  choose_task: functools.partial[Task],
  split: str | None,
  method: Method | None,
  normalize: Normalize,
  beams: int,
  length_penalty: float,
  resamples: int,
  output: str | None,
  batch_size: int,
  input_length: int | None,
  target_length: int | None,
  record: Record,
  console: Console | None = None,
) -> EvaluationResult:
  """Measures, prints a table, and writes scores and predictions if a folder is given.

  Args:
    base: the model.
    devices: where to compute.
    prompt_file: a prompt or tuned weights, or several prompts of one model; None for the bare
      model.
    choose_task: `task_choice.choose` with what was given; a prompt file may say the rest.
    split: None for test, else validation, the first that has labels.
    method: see `Evaluator`.
    normalize: see `Evaluator`.
    beams: see `Evaluator`.
    length_penalty: see `Evaluator`.
    resamples: of the bootstrap that gives intervals; 0 for none.
    output: folder for results.json and predictions.
    batch_size: examples at once.
    input_length: most tokens of an input; None as in training.
    target_length: most tokens of a target; None as in training.
    record: all of these settings as text.
    console: where to print; None is silent.

  Raises:
    UserError: a file that is missing, damaged or of another model; no split with labels; a folder
      of a training run.
  """
  placement = devices.start()
  console = console_of(console)
  folder = pathlib.Path(output) if output else None
  processes.broadcast(lambda: _check(folder, resamples))
  files = [prompt_file] if isinstance(prompt_file, str) else list(prompt_file or ())
  loaded = loading.load_all(base, files, placement)
  task = joint_evaluation.task_of_all(functools.partial(for_prompt, choose_task), loaded, files)
  lengths = joint_evaluation.longest([r.lengths(input_length, target_length) for r in loaded])
  split, examples = _split(task, split, loaded[0].backbone.vocabulary, lengths, output)
  for side in cut(examples, loaded[0].backbone.vocabulary, lengths):
    if side.cut:
      console.print(f'Cut: {side}', highlight=False, soft_wrap=True)
  features = [in_file(r.model.prompt, r.metadata, task) for r in loaded]
  groups = joint_evaluation.groups(loaded, features)
  options = {
    'max_target_length': lengths.targets, 'method': method, 'batch_size': batch_size,
    'normalize': normalize, 'beams': beams, 'length_penalty': length_penalty,
    'placement': placement,
  }  # fmt: skip
  with progress_bar(len(examples) * len(groups), f'{task.name} {split}', console) as advance:
    evaluator, scored = joint_evaluation.evaluate(
      loaded, groups, task, features, examples, advance, **options
    )

  names = joint_evaluation.names(files) or [f'{loaded[0].backbone.name}, untuned']
  found = dict(zip(names, scored, strict=True))
  joint = joint_evaluation.combined(evaluator, examples, scored) if len(files) > 1 else {}
  # One of several processes is enough for the bootstrap, and the others wait for it.
  systems = processes.broadcast(
    lambda: _systems(evaluator, found, joint, task, examples, resamples)
  )
  answers = {name: [predictions] for name, (_, predictions) in (found | joint).items()}
  measured = Scores(task.name, split, systems, answers)
  processes.broadcast(
    lambda: _conclude(
      measured, list(joint), task, examples, files, resamples, folder, record, console
    )
  )
  return EvaluationResult(measured, folder)


def _systems(
  evaluator: joint_evaluation.TaskEvaluator,
  found: Mapping[str, joint_evaluation.Scored],
  joint: Mapping[str, joint_evaluation.Scored],
  task: Task,
  examples: Sequence[Example],
  resamples: int,
) -> list[SystemScores]:
  """Every prompt and all together, with intervals."""
  known = lambda name, scored: score_table.measured(
    name,
    evaluator,
    examples,
    *scored,
    resamples=resamples,
    calibrated=name != joint_evaluation.VOTE,
  )
  systems = [known(*item) for item in found.items()]
  if joint:
    systems += joint_evaluation.mean_and_best(systems, task)
    systems += [known(*item) for item in joint.items()]
  return systems


def _conclude(
  measured: Scores,
  joint: Sequence[str],
  task: Task,
  examples: Sequence[Example],
  files: Sequence[str],
  resamples: int,
  folder: pathlib.Path | None,
  record: Record,
  console: Console,
) -> None:
  """The files, where a folder is given, and the table."""
  if folder:
    record.write(folder)
    _write(folder, measured, joint, task, files, resamples)
    on_disk.seal(folder)
  title = f'{task.name}, {len(examples)} {measured.split} examples, in percent{f1_label(task)}'
  if any(s.intervals for s in measured.systems):
    title += f' ({100 * LEVEL:.0f} % intervals of {resamples} resamples)'
  score_table.print_scores(measured.systems, title, console, task.parts)


def _check(folder: pathlib.Path | None, resamples: int) -> None:
  """Refuses what would else be found only after the work is done."""
  if resamples < 0:
    raise UserError(f'resamples is {resamples}; expected a number of resamples, or 0 for none.')
  if folder and os.path.exists(folder / 'metrics.jsonl'):
    raise UserError(
      f'The folder {folder} holds a training run, whose results would be replaced. Give another '
      f'output folder, such as {folder / "eval"}.',
      parameters=['output'],
    )


def _write(
  folder: pathlib.Path,
  measured: Scores,
  joint: Sequence[str],
  task: Task,
  files: Sequence[str],
  resamples: int,
) -> None:
  """results.json, and the predictions of every prompt and of all together."""
  score_table.write_scores(
    folder / 'results.json',
    measured.systems,
    task=task.name,
    split=measured.split,
    prompts=list(files),
    tasks=task_facts(task),
    resamples=resamples,
    level=LEVEL,
  )
  alone = {name: rows for name, (rows,) in measured.predictions.items() if name not in joint}
  for number, predictions in enumerate(alone.values(), 1):
    name = f'predictions-{number}.jsonl' if joint else 'predictions.jsonl'
    write_predictions(folder / name, predictions)
  for name in joint:
    (predictions,) = measured.predictions[name]
    write_predictions(folder / f'{joint_evaluation.FILES[name]}.jsonl', predictions)


def _split(
  task: Task, named: str | None, vocabulary: Vocabulary, lengths: Lengths, output: str | None
) -> tuple[str, Sequence[Example]]:
  """The split that is named, or the first that has labels, and its examples."""
  if named is not None and named not in task.splits:
    raise unknown(f'split of {task.name!r}', named, task.splits, parameters=['split'])
  for split in [named] if named else [s for s in ('test', 'validation') if s in task.splits]:
    examples = task.load(split, vocabulary, lengths)
    if task.has_answers(examples) or (named and output):
      findings.warn(task, {split: examples}, vocabulary, lengths.targets)
      return split, examples
  if named:
    raise UserError(
      f'The {named} split of {task.name!r} has no labels, so there is no score. Give another '
      'split, or an output folder for the predictions alone.',
      parameters=['split', 'output'],
    )
  raise UserError(
    f'The task {task.name!r} has {", ".join(task.splits)}, of which none but train has labels; '
    'name a split.',
    parameters=['split'],
  )
