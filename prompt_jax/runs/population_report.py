"""What a population leaves: a table by setting, the vote of its prompts, and the best one."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prompt_jax import loading
from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.evaluation.comparison import Verdict
from prompt_jax.evaluation.ensemble import vote
from prompt_jax.evaluation.findings import UNTUNED, baselines
from prompt_jax.evaluation.predictions import write_predictions
from prompt_jax.evaluation.suite import f1_label, task_facts
from prompt_jax.runs import score_table
from prompt_jax.runs.candidates import Candidate
from prompt_jax.runs.population_scores import PopulationScores, Scored
from prompt_jax.runs.results import PopulationResult, Scores, SystemScores
from prompt_jax.runs.setup import trained_prompt, write_curve, write_events
from prompt_jax.runs.untuned import Untuned, on_validation, verdicts_of
from prompt_jax.runs.variants import title
from prompt_jax.runtime import processes
from prompt_jax.training.members import Result
from prompt_jax.training.objective import count


class _Measured(NamedTuple):
  """Prompts of one task on the examples that chose nothing.

  Attributes:
    split: of those examples.
    untuned: scores and answers of the model without a prompt.
    scored: member -> what its prompt has reached; without those that diverged before any was kept.
  """

  split: str
  untuned: Scored
  scored: dict[int, Scored]


def conclude(
  population: Sequence[Candidate],
  results: Sequence[Result],
  scores: PopulationScores,
  folder: pathlib.Path,
  batch_size: int,
) -> PopulationResult:
  """Measures every prompt on examples that selected nothing, and keeps the best beside them.

  Args:
    population: what was trained.
    results: of each.
    scores: how they are measured.
    folder: of the run.
    batch_size: examples at once.
  """
  folders = {folder, *(result.folder for result in results)}
  processes.broadcast(lambda: on_disk.unseal(*folders))
  found: dict[str, Scores] = {}
  best: dict[str, pathlib.Path] = {}
  lines: dict[int, Mapping[str, float]] = {}
  for task in dict.fromkeys(c.setup.task.name for c in population):
    members = [k for k, c in enumerate(population) if c.setup.task.name == task]
    untuned = Untuned(population[members[0]].setup, batch_size)
    measured = _measured(population, results, members, scores, untuned)
    lines |= _lines(population, members, untuned)
    # One of several processes is enough for the rest, and the others wait for it.
    found[task], path = processes.broadcast(
      functools.partial(_write, population, results, members, measured, scores, lines, folder)
    )
    if path is not None:
      best[task] = path
  processes.broadcast(lambda: on_disk.seal_all(folders))
  runs = [
    trained_prompt(r, c.member.seed, c.member.name, c.setting, lines[k])
    for k, (c, r) in enumerate(zip(population, results, strict=True))
  ]
  return PopulationResult(folder, runs, found, best)


def _lines(
  population: Sequence[Candidate], members: Sequence[int], untuned: Untuned
) -> dict[int, Mapping[str, float]]:
  """Member -> the baselines of its curve."""
  found: dict[int, Mapping[str, float]] = {}
  of_examples: dict[int, Mapping[str, float]] = {}  # prompts with the same examples have the same
  for k in members:
    setup, metric = population[k].setup, population[k].member.metric
    if id(setup.examples) not in of_examples:
      of_examples[id(setup.examples)] = on_validation(setup, untuned, metric)
    found[k] = of_examples[id(setup.examples)]
  return found


def _write(
  population: Sequence[Candidate],
  results: Sequence[Result],
  members: Sequence[int],
  measured: _Measured | None,
  scores: PopulationScores,
  lines: Mapping[int, Mapping[str, float]],
  folder: pathlib.Path,
) -> tuple[Scores, pathlib.Path | None]:
  """What is left of one task: its table, what each prompt answered, and its best prompt's file."""
  setup = population[members[0]].setup
  console, task = setup.console, setup.task.name
  for k in members:
    write_curve(results[k], lines[k])
    write_events(results[k].folder)
  several = len(members) < len(population)
  found = Scores(task, None)
  if measured is not None:
    name = f'results-{task}.json' if several else 'results.json'
    found = _report(population, results, members, measured, scores, lines, folder / name)
  best = best_of(results, members)
  if best is None:
    console.print('No validation examples, so no prompt is the best: each is in its folder')
    return found, None
  path = folder / (f'prompt-{task}.safetensors' if several else 'prompt.safetensors')
  write_atomically(path, results[best].file.read_bytes())
  shown = f'{results[best].selection.best:.4g}, {population[best].member.name}'
  console.print(f'Best prompt: {path} ({shown})', soft_wrap=True, highlight=False)
  line = loading.command(path, setup.model_name, setup.vocabulary)
  console.print(f'Use it: {line}', soft_wrap=True, highlight=False, markup=False)
  return found, path


def best_of(results: Sequence[Result], members: Sequence[int]) -> int | None:
  """The member with the best validation score, the first of equals; None without any."""
  known = [k for k in members if results[k].selection.best is not None]
  return max(known, key=lambda k: results[k].selection.best or 0.0, default=None)


def _measured(
  population: Sequence[Candidate],
  results: Sequence[Result],
  members: Sequence[int],
  scores: PopulationScores,
  untuned: Untuned,
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
  scored = dict(zip(params, scores.of(list(params), list(params.values()), split), strict=True))
  return _Measured(split, untuned(setup.examples[split]), scored)


def _report(
  population: Sequence[Candidate],
  results: Sequence[Result],
  members: Sequence[int],
  measured: _Measured,
  scores: PopulationScores,
  lines: Mapping[int, Mapping[str, float]],
  path: pathlib.Path,
) -> Scores:
  """Prints and writes the table of one task, and what its prompts answered."""
  setup, scored = population[members[0]].setup, measured.scored
  answers = {}
  for k, (_, predictions) in scored.items():
    write_predictions(results[k].folder / 'predictions.jsonl', predictions)
    answers[population[k].member.name] = [predictions]
  examples = setup.examples[measured.split]
  best = best_of(results, members)
  table: list[SystemScores] = []
  verdict: list[Verdict] = []
  # Variants with other examples to train on have no baseline in common.
  if len({population[k].digests['train'] for k in members}) == 1:
    found = baselines(setup.examples['train'], examples, setup.task)
    table += [SystemScores(name, [of]) for name, of in found.items()]
    if best in scored:
      verdict = verdicts_of(setup, examples, measured.untuned[1], [scored[best][1]])
  table.append(SystemScores(UNTUNED, [measured.untuned[0]], 0))
  table += _by_setting(population, results, scored)
  voters = [k for k in scored if not _dropped(results[k])]
  if len(voters) > 1:
    voted = vote([scored[k][1] for k in voters])
    of_vote = scores.measure(voters[0], measured.split, voted)
    table.append(SystemScores(f'majority vote of {len(voters)}', [of_vote]))
    answers[table[-1].name] = [voted]
    write_predictions(path.with_name(path.name.replace('results', 'vote') + 'l'), voted)
  facts = [_facts(population[k], results[k], scored.get(k), lines[k]) for k in members]
  tasks = task_facts(setup.task)
  score_table.write_scores(
    path, table, task=setup.task.name, split=measured.split, prompts=facts, tasks=tasks,
    verdicts=[v.facts() for v in verdict],
  )  # fmt: skip
  heading = f'{setup.task.name}, {len(examples)} {measured.split} examples, in percent'
  heading += f1_label(setup.task)
  score_table.print_scores(table, heading, setup.console, setup.task.parts)
  for worse in (v for v in verdict if not v.better):
    setup.console.print(f'Best prompt: {worse}', soft_wrap=True, highlight=False, markup=False)
  return Scores(setup.task.name, measured.split, table, answers, verdict)


def _dropped(result: Result) -> bool:
  """Whether a prompt was stopped for being worse than others."""
  return result.ended is not None and result.ended.why != 'patience'


def _by_setting(
  population: Sequence[Candidate], results: Sequence[Result], scored: dict[int, Scored]
) -> list[SystemScores]:
  """One system for each setting, with the scores of its seeds."""
  by_title: dict[str, list[int]] = {}
  for k in scored:
    by_title.setdefault(title(population[k].setting) or 'tuned prompt', []).append(k)
  return [
    SystemScores(name, [scored[k][0] for k in members], count(results[members[0]].trainable))
    for name, members in by_title.items()
  ]


def _facts(
  candidate: Candidate, result: Result, scored: Scored | None, lines: Mapping[str, float]
) -> dict[str, Any]:
  """One prompt, as JSON."""
  plain = lambda v: v if isinstance(v, int | float | str) else repr(v)
  return {
    'name': candidate.member.name,
    'setting': {name: plain(v) for name, v in candidate.setting.items()},
    'seed': candidate.member.seed,
    'steps': result.step,
    'ended': result.ended and dataclasses.asdict(result.ended),
    'validation': result.selection.best,
    'best_step': result.selection.step,
    'on_validation': lines,
    'scores': scored and scored[0],
  }
