"""Reads and validates results.json, which train, population and eval write."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from prompt_jax.checkpoints.on_disk import damaged
from prompt_jax.reports.runs import Scores

# Baselines without tuning, which `train` and `population` write next to their own scores.
UNTUNED = 'the model, untuned'
BASELINES = ('majority class', 'TF-IDF + logistic regression', UNTUNED)
VOTE = 'majority vote of '


class UnreadableError(Exception):
  """A file has unexpected contents; the message says what is wrong."""


@dataclasses.dataclass(frozen=True)
class System:
  """One system.

  Attributes:
    scores: of each seed.
    trained: number of trainable parameters.
    intervals: {score: (low, high)}, of those that have one.
  """

  scores: tuple[Scores, ...]
  trained: int | None
  intervals: Mapping[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Results:
  """A results.json.

  Attributes:
    task: its name.
    split: the split that the scores are from.
    systems: by name, in order.
    prompts: the entry of each prompt of a population.
    on_validation: of `train`: name of a baseline -> its score on the examples of the curve.
    files: the prompt files that were evaluated, whose systems come first and in this order; None
      where the file does not say.
  """

  task: str
  split: str | None
  systems: Mapping[str, System]
  prompts: tuple[Mapping[str, Any], ...] = ()
  files: tuple[str, ...] | None = None
  on_validation: Scores = dataclasses.field(default_factory=dict)

  @property
  def tuned(self) -> dict[str, System]:
    """The systems that were tuned, without baselines."""
    return {name: s for name, s in self.systems.items() if name not in BASELINES}


def read(path: pathlib.Path) -> Results:
  """Reads a file.

  Raises:
    UnreadableError: it is not JSON, or does not have the form that our commands write.
    OSError: it cannot be opened.
  """
  if damage := damaged(path.parent, path.name):
    raise UnreadableError(damage)
  try:
    found = json.loads(path.read_text('utf-8'))
  except ValueError as e:  # of the JSON and of the encoding
    raise UnreadableError(f'{path.name} is not JSON: {e}') from None
  try:
    intervals = found.get('intervals', {})
    systems = {str(n): _system(s, intervals.get(n, {})) for n, s in found['systems'].items()}
    said, split = found.get('prompts'), found.get('split')
    files = said is not None and all(isinstance(p, str) for p in said)
    prompts = () if files else tuple(_prompt(p) for p in said or ())
    return Results(
      str(found['task']), split and str(split), systems, prompts, tuple(said) if files else None,
      _scores(found.get('on_validation', {})),
    )  # fmt: skip
  except (AttributeError, KeyError, TypeError, ValueError) as e:
    raise UnreadableError(
      f'{path.name} is not as train, population or eval write it ({type(e).__name__}: {e})'
    ) from None


def _system(found: Any, intervals: Any) -> System:
  scores = tuple(_scores(s) for s in found['scores'])
  trained = found.get('trained')
  bounds = {str(name): (float(low), float(high)) for name, (low, high) in intervals.items()}
  return System(scores, None if trained is None else int(trained), bounds)


def _scores(found: Any) -> Scores:
  return {str(name): float(value) for name, value in found.items()}


def _prompt(found: Any) -> Mapping[str, Any]:
  """The entry of one prompt of a population."""
  return {
    'name': str(found['name']),
    'seed': int(found['seed']),
    'scores': None if found['scores'] is None else _scores(found['scores']),
    'why': found['ended']['why'] if found['ended'] else None,
    'on_validation': _scores(found.get('on_validation', {})),
  }
