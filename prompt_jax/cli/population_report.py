"""What a population leaves: a table by setting, the vote of its prompts, and the best one."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from prompt_jax.checkpoints.prompt_file import load_prompt, write_atomically
from prompt_jax.cli import cells, report, tuned
from prompt_jax.cli.candidates import Candidate
from prompt_jax.cli.population_scores import Scored, Scores
from prompt_jax.cli.setup import evaluator_of, write_events
from prompt_jax.evaluation.ensemble import vote
from prompt_jax.evaluation.report import write_predictions
from prompt_jax.models.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.training.members import Result
from prompt_jax.training.partition import count


def conclude(
  population: Sequence[Candidate],
  results: Sequence[Result],
  scores: Scores,
  folder: pathlib.Path,
  batch_size: int,
) -> None:
  """Measures every prompt on examples that chose nothing, and keeps the best beside them.

  Args:
    population: what was trained.
    results: of each.
    scores: how they are measured.
    folder: of the run.
    batch_size: examples at once.
  """
  console = population[0].setup.console
  for result in results:
    write_events(result.folder)
  for task in dict.fromkeys(c.setup.task.name for c in population):
    members = [k for k, c in enumerate(population) if c.setup.task.name == task]
    several = len(members) < len(population)
    name = f'results-{task}.json' if several else 'results.json'
    _report(population, results, members, scores, folder / name, batch_size)
    best = best_of(results, members)
    if best is None:
      console.print('No validation examples, so no prompt is the best: each is in its folder')
      continue
    path = folder / (f'prompt-{task}.safetensors' if several else 'prompt.safetensors')
    write_atomically(path, results[best].file.read_bytes())
    shown = f'{results[best].selection.best:.4g}, {population[best].member.name}'
    console.print(f'Best prompt: {path} ({shown})', soft_wrap=True, highlight=False)
    line = tuned.command(path, population[best].setup.model_name)
    console.print(f'Use it: {line}', soft_wrap=True, highlight=False, markup=False)


def best_of(results: Sequence[Result], members: Sequence[int]) -> int | None:
  """The member with the best validation score, the first of equals; None without any."""
  known = [k for k in members if results[k].selection.best is not None]
  return max(known, key=lambda k: results[k].selection.best or 0.0, default=None)


def _report(
  population: Sequence[Candidate],
  results: Sequence[Result],
  members: Sequence[int],
  scores: Scores,
  path: pathlib.Path,
  batch_size: int,
) -> None:
  """Prints and writes the table of one task."""
  setup = population[members[0]].setup
  which = next((s for s in ('test', 'validation') if s in setup.examples), None)
  if which is None:
    return
  judged = [k for k in members if results[k].file.is_file()]  # others diverged before any
  params = [load_prompt(results[k].file).params for k in judged]
  scored = dict(zip(judged, scores.of(judged, params, which), strict=True))
  for k, (_, predictions) in scored.items():
    write_predictions(results[k].folder / 'predictions.jsonl', predictions)
  examples = setup.examples[which]
  bare = PromptedT5(T5(setup.backbone.config))
  untuned = evaluator_of(setup, bare, batch_size)(
    {'params': {'backbone': setup.backbone.params}}, examples
  )[0]
  table: list[report.Row] = []
  # Settings with other examples to train on have no baseline in common.
  if len({population[k].digests['train'] for k in members}) == 1:
    table += report.baselines(setup.examples['train'], examples, setup.task)
  table.append(report.Row('the model, untuned', [untuned], 0))
  table += _by_setting(population, results, scored)
  voters = [k for k in judged if not _dropped(results[k])]
  if len(voters) > 1:
    voted = vote([scored[k][1] for k in voters])
    row = report.Row(f'majority vote of {len(voters)}', [scores.measure(voters[0], which, voted)])
    table.append(row)
    write_predictions(path.with_name(path.name.replace('results', 'vote') + 'l'), voted)
  facts = [_facts(population[k], results[k], scored.get(k)) for k in members]
  report.write(path, table, task=setup.task.name, split=which, prompts=facts)
  title = f'{setup.task.name}, {len(examples)} {which} examples, in percent'
  report.show(table, title, setup.console, setup.task.parts)


def _dropped(result: Result) -> bool:
  """Whether a prompt was stopped for being worse than others."""
  return result.ended is not None and result.ended.why != 'patience'


def _by_setting(
  population: Sequence[Candidate], results: Sequence[Result], scored: dict[int, Scored]
) -> list[report.Row]:
  """One row for each setting, with the scores of its seeds; and what became of those that ended."""
  rows: dict[str, list[int]] = {}
  for k in scored:
    rows.setdefault(cells.title(population[k].cell) or 'tuned prompt', []).append(k)
  return [
    report.Row(name, [scored[k][0] for k in members], count(results[members[0]].trainable))
    for name, members in rows.items()
  ]


def _facts(candidate: Candidate, result: Result, scored: Scored | None) -> dict[str, Any]:
  """One prompt, as JSON."""
  plain = lambda v: v if isinstance(v, int | float | str) else repr(v)
  return {
    'name': candidate.member.name,
    'setting': {name: plain(v) for name, v in candidate.cell.items()},
    'seed': candidate.member.seed,
    'steps': result.step,
    'ended': result.ended and dataclasses.asdict(result.ended),
    'validation': result.selection.best,
    'best_step': result.selection.step,
    'scores': scored and scored[0],
  }
