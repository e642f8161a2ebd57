"""Evaluation during a run: scores, the best steps, and who stops."""

import math
import time
from collections.abc import Mapping, Sequence

from prompt_jax.training.halving import worse_half
from prompt_jax.training.members import Ended, EvaluateTogether, Point, Run
from prompt_jax.training.progress import Progress
from prompt_jax.training.records import Records
from prompt_jax.training.selection import metric_value


def judge(
  run: Run,
  evaluate: EvaluateTogether,
  point: Point,
  records: Sequence[Records],
  progress: Progress,
) -> tuple[float | None, bool]:
  """Evaluates, records, writes the prompt files that are the best, and stops who has to stop.

  Returns the value of the only member (None of several), and whether any improved.
  """
  active, began = point.active, time.monotonic()
  found = evaluate(active, [point.standings[k].state.trainable for k in active])
  seconds = time.monotonic() - began
  values, improved = {}, []
  for k, scores in zip(active, found, strict=True):
    metrics = {name: float(v) for name, v in scores.items()}
    records[k].add(point.step, 'eval', {**metrics, 'seconds': seconds})
    metric = run.members[k].metric
    if metric is not None:
      values[k] = metric_value(metrics, metric)
      if _select(run, point, k, metric, values[k]):
        improved.append(k)
  if len(run.members) == 1:
    shown = '  '.join(f'{name} {float(v):.4g}' for name, v in found[0].items())
    progress.say(f'step {point.step}: {shown}{"  (best so far)" if improved else ""}')
    return values.get(0), bool(improved)
  progress.say(f'step {point.step}: {_summary(run, point, values)}')
  if point.step in run.rungs:
    _halve(run, point, progress)
  return None, bool(improved)


def _select(run: Run, point: Point, k: int, metric: str, value: float) -> bool:
  """Whether this step is a member's best, whose file is then written; patience may end it."""
  settings, standing = run.settings, point.standings[k]
  standing.selection = standing.selection.updated(point.step, value, settings.mode)
  if standing.selection.exhausted(settings.patience):
    standing.ended = Ended(point.step, 'patience')
  if standing.selection.step != point.step:
    return False
  facts = {'step': point.step, 'metric': metric, 'value': value}
  output = run.outputs[k]
  output.write(output.best, standing.state.trainable, facts)
  return True


def _summary(run: Run, point: Point, values: Mapping[int, float]) -> str:
  """One line on the scores of a population."""
  known = {k: v for k, v in values.items() if not math.isnan(v)}
  if not known:
    return f'evaluated {len(point.active)} prompts'
  choose = max if run.settings.mode == 'max' else min
  first = choose(known, key=lambda k: known[k])
  mean = sum(known.values()) / len(known)
  name = run.members[first]
  return f'{name.metric}: mean {mean:.4g} of {len(known)}, {known[first]:.4g} of {name.name}'


def _halve(run: Run, point: Point, progress: Progress) -> None:
  """Takes the worse half out."""
  worse = worse_half(
    {k: point.standings[k].selection.best for k in point.active}, run.settings.mode
  )
  for k in worse:
    point.standings[k].ended = Ended(point.step, 'halving')
  names = ', '.join(run.members[k].name for k in worse)
  progress.say(f'step {point.step}: {len(point.active)} go on, without {names or "none"}')
