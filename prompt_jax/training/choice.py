"""The choice between a run's best and last prompt on all validation examples.

While a run trains, a sample of them chooses. What is kept in the end was measured on all.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

from rich.console import Console

from prompt_jax.checkpoints.prompt_file import load_prompt, save_prompt
from prompt_jax.runtime import processes
from prompt_jax.training.members import Result, Selection

# From (number of a member, file) to the value of its metric on all examples.
Measure = Callable[[Sequence[tuple[int, pathlib.Path]]], Sequence[float]]


def choose_on_all(
  results: Sequence[Result], measure: Measure, mode: str, examples: int, console: Console
) -> list[Result]:
  """Measures the files of each run's best and last step, and keeps the better one as its best.

  The file of the best step then has the value on all examples. Calling it again changes nothing.

  Args:
    results: of the runs; those that chose nothing, or have no file, are left as they are.
    measure: how.
    mode: "max" or "min", which values are good.
    examples: how many that measures on.
    console: where to print what was chosen.
  """
  candidates = [(k, path) for k, r in enumerate(results) for path in _files(r)]
  values = dict(zip(candidates, measure(candidates), strict=True)) if candidates else {}
  sign = {'max': 1.0, 'min': -1.0}[mode]
  chosen = list(results)
  for k, result in enumerate(results):
    files = _files(result)
    if files:
      best = max(files, key=lambda path: sign * values[k, path])
      value = values[k, best]
      keep = functools.partial(_keep, result, best, value, examples)
      step = processes.broadcast(keep)
      said = f'{result.metric} {value:.4g} on all {examples:,} validation examples: step {step}'
      console.print(said, highlight=False)
      chosen[k] = dataclasses.replace(result, selection=Selection(value, step))
  return chosen


def _files(result: Result) -> list[pathlib.Path]:
  """The file of the best step, and that of the last where it is another one and no worse half."""
  dropped = result.ended is not None and result.ended.why != 'patience'
  found = [result.file] + [result.folder / 'last.safetensors'] * (not dropped)
  there = processes.broadcast(lambda: [path for path in found if path.is_file()])
  return there if result.selection.step is not None else []


def _keep(result: Result, path: pathlib.Path, value: float, examples: int) -> int:
  """Writes the file of the best step; returns that step."""
  prompt = load_prompt(path, None)
  said = {'metric': result.metric, 'value': value, 'validation_examples': examples}
  save_prompt(result.file, dataclasses.replace(prompt, metadata={**prompt.metadata, **said}))
  return int(prompt.metadata['step'])
