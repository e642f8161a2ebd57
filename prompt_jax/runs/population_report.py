"""What a population leaves: a table by setting, the vote of its prompts, and the best one."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from prompt_jax import loading
from prompt_jax.checkpoints.prompt_file import load_prompt, write_atomically
from prompt_jax.evaluation.comparison import described
from prompt_jax.evaluation.ensemble import vote
from prompt_jax.evaluation.predictions import write_predictions
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.runs import cells, score_table
from prompt_jax.runs.candidates import Candidate
from prompt_jax.runs.population_scores import Scored, Scores
from prompt_jax.runs.setup import evaluator_of, write_events
from prompt_jax.runtime import processes
from prompt_jax.training.members import Result
from prompt_jax.training.partition import count


class _Measured(NamedTuple):
  """Prompts of one task on the examples that chose nothing.

  Attributes:
    split: of those examples.
    untuned: scores of the model without a prompt.
    scored: member -> what its prompt has reached; without those that diverged before any was kept.
  """

  split: str
  untuned: dict[str, float]
  scored: dict[int, Scored]


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
  for task in dict.fromkeys(c.setup.task.name for c in population):
    members = [k for k, c in enumerate(population) if c.setup.task.name == task]
    measured = _measured(population, results, members, scores, batch_size)
    # One of several processes is enough for the rest, and the others wait for it.
    processes.broadcast(
      functools.partial(_write, population, results, members, measured, scores, folder)
    )


def _write(
  population: Sequence[Candidate],
  results: Sequence[Result],
  members: Sequence[int],
  measured: _Measured | None,
  scores: Scores,
  folder: pathlib.Path,
) -> None:
  """What is left of one task: its table, its best prompt and what each prompt answered."""
  setup = population[members[0]].setup
  console, task = setup.console, setup.task.name
  for k in members:
    write_events(results[k].folder)
  several = len(members) < len(population)
  if measured is not None:
    name = f'results-{task}.json' if several else 'results.json'
    _report(population, results, members, measured, scores, folder / name)
  best = best_of(results, members)
  if best is None:
    console.print('No validation examples, so no prompt is the best: each is in its folder')
    return
  path = folder / (f'prompt-{task}.safetensors' if several else 'prompt.safetensors')
  write_atomically(path, results[best].file.read_bytes())
  shown = f'{results[best].selection.best:.4g}, {population[best].member.name}'
  console.print(f'Best prompt: {path} ({shown})', soft_wrap=True, highlight=False)
  line = loading.command(path, setup.model_name)
  console.print(f'Use it: {line}', soft_wrap=True, highlight=False, markup=False)


def best_of(results: Sequence[Result], members: Sequence[int]) -> int | None:
  """The member with the best validation score, the first of equals; None without any."""
  known = [k for k in members if results[k].selection.best is not None]
  return max(known, key=lambda k: results[k].selection.best or 0.0, default=None)


def _measured(
  population: Sequence[Candidate],
  results: Sequence[Result],
  members: Sequence[int],
  scores: Scores,
  batch_size: int,
) -> _Measured | None:
  """None where there are no such examples. Every process takes part; the first reads the files."""
  setup = population[members[0]].setup
  split = next((s for s in ('test', 'validation') if s in setup.examples), None)
  if split is None:
    return None

  def kept() -> dict[int, Any]:
    found = [k for k in members if results[k].file.is_file()]
    return {k: load_prompt(results[k].file).params for k in found}

  params = processes.broadcast(kept)
  judged = list(params)
  scored = dict(zip(judged, scores.of(judged, list(params.values()), split), strict=True))
  bare = PromptedT5(T5(setup.backbone.config))
  untuned = evaluator_of(setup, bare, batch_size)(
    {'params': {'backbone': setup.backbone.params}}, setup.examples[split]
  )[0]
  return _Measured(split, untuned, scored)


def _report(
  population: Sequence[Candidate],
  results: Sequence[Result],
  members: Sequence[int],
  measured: _Measured,
  scores: Scores,
  path: pathlib.Path,
) -> None:
  """Prints and writes the table of one task, and what its prompts answered."""
  setup, scored = population[members[0]].setup, measured.scored
  for k, (_, predictions) in scored.items():
    write_predictions(results[k].folder / 'predictions.jsonl', predictions)
  examples = setup.examples[measured.split]
  table: list[score_table.SystemScores] = []
  # Settings with other examples to train on have no baseline in common.
  if len({population[k].digests['train'] for k in members}) == 1:
    table += score_table.baselines(setup.examples['train'], examples, setup.task)
  table.append(score_table.SystemScores('the model, untuned', [measured.untuned], 0))
  table += _by_setting(population, results, scored)
  voters = [k for k in scored if not _dropped(results[k])]
  if len(voters) > 1:
    voted = vote([scored[k][1] for k in voters])
    row = score_table.SystemScores(
      f'majority vote of {len(voters)}', [scores.measure(voters[0], measured.split, voted)]
    )
    table.append(row)
    write_predictions(path.with_name(path.name.replace('results', 'vote') + 'l'), voted)
  facts = [_facts(population[k], results[k], scored.get(k)) for k in members]
  tasks = described(setup.task)
  score_table.write_scores(
    path, table, task=setup.task.name, split=measured.split, prompts=facts, tasks=tasks
  )
  title = f'{setup.task.name}, {len(examples)} {measured.split} examples, in percent'
  score_table.print_scores(table, title, setup.console, setup.task.parts)


def _dropped(result: Result) -> bool:
  """Whether a prompt was stopped for being worse than others."""
  return result.ended is not None and result.ended.why != 'patience'


def _by_setting(
  population: Sequence[Candidate], results: Sequence[Result], scored: dict[int, Scored]
) -> list[score_table.SystemScores]:
  """One row for each setting, with the scores of its seeds; and what became of those that ended."""
  rows: dict[str, list[int]] = {}
  for k in scored:
    rows.setdefault(cells.title(population[k].cell) or 'tuned prompt', []).append(k)
  return [
    score_table.SystemScores(
      name, [scored[k][0] for k in members], count(results[members[0]].trainable)
    )
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
