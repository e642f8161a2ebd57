"""What the model answers without a prompt: the same for every run on it, so it is kept on disk."""

import functools
import pathlib
from collections.abc import Sequence

import jax

from prompt_jax import __version__
from prompt_jax.configuration.description import literal
from prompt_jax.data.example import Example
from prompt_jax.evaluation.comparison import Verdict, verdicts
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.evaluation.findings import MAJORITY, UNTUNED, majority_predictions
from prompt_jax.evaluation.metrics import Scores
from prompt_jax.evaluation.predictions import (
  Prediction,
  answers_key,
  examples_digest,
  keep_answers,
  progress_bar,
  read_answers,
)
from prompt_jax.evaluation.suite import Suite, task_facts
from prompt_jax.loading import prompted
from prompt_jax.runs.setup import JUDGES, Setup, evaluator_of
from prompt_jax.runtime import processes
from prompt_jax.runtime.devices import kept_folder


class Untuned:
  """The model alone on examples of a task: what an earlier run found on the same, or asked once."""

  def __init__(self, setup: Setup, batch_size: int):
    """Args: the set-up of the run, and examples at once."""
    self._setup, self._batch_size = setup, batch_size
    self._found: dict[str, tuple[Scores, list[Prediction]]] = {}

  @functools.cached_property
  def evaluator(self) -> Evaluator | Suite:
    """What asks it; one, so that its programs are compiled once."""
    return evaluator_of(self._setup, prompted(self._setup.backbone.config), self._batch_size)

  def __call__(self, examples: Sequence[Example]) -> tuple[Scores, list[Prediction]]:
    """Scores and answers, in the order of the examples."""
    name = _name(self._setup, examples)
    if name not in self._found:
      read = lambda: read_answers(folder, name, examples) if (folder := self._folder()) else None
      self._found[name] = processes.broadcast(read) or self._asked(name, examples)
    return self._found[name]

  def _folder(self) -> pathlib.Path | None:
    """Where answers are kept; a task's own measure may change while its name does not."""
    return kept_folder() if self._setup.task.score is None else None

  def _asked(self, name: str, examples: Sequence[Example]) -> tuple[Scores, list[Prediction]]:
    variables = {'params': {'backbone': self._setup.backbone.params}}
    with progress_bar(len(examples), 'the model, untuned', self._setup.console) as advance:
      found = self.evaluator(variables, examples, advance)
    if folder := processes.broadcast(self._folder):
      processes.broadcast(lambda: keep_answers(folder, name, *found))
    return found


def on_validation(setup: Setup, untuned: Untuned, metric: str | None) -> dict[str, float]:
  """The metric of the majority class and of the untuned model, on the examples of the curve."""
  examples = setup.examples.get(JUDGES)
  if examples is None or metric is None:
    return {}
  found = {UNTUNED: untuned(examples)[0]}
  rows = majority_predictions(setup.examples['train'], examples, setup.task)
  if rows is not None and setup.task.score is None:
    found = {MAJORITY: untuned.evaluator.measure(examples, rows), **found}
  return {name: scores[metric] for name, scores in found.items() if metric in scores}


def verdicts_of(
  setup: Setup,
  examples: Sequence[Example],
  bare: Sequence[Prediction],
  tuned: Sequence[Sequence[Prediction]],
) -> list[Verdict]:
  """What was tuned beside the majority class, where there is one, and the untuned model.

  Args:
    setup: of the run.
    examples: of its task, that selected nothing.
    bare: what the untuned model answers.
    tuned: what each seed answers.
  """
  others = {
    f'the {MAJORITY}': majority_predictions(setup.examples['train'], examples, setup.task),
    'the untuned model': bare,
  }
  known = {name: rows for name, rows in others.items() if rows is not None}
  return verdicts(known, tuned, task_facts(setup.task), setup.backbone.vocabulary)


def _name(setup: Setup, examples: Sequence[Example]) -> str:
  """A digest of the model, how it is computed, the task and its examples."""
  backbone = setup.backbone
  of_task = [
    (part.name, part.labels, part.metrics, literal([part.postprocess, part.right]))
    for part in setup.task.parts or (setup.task,)
  ]
  leaves = jax.tree.leaves(backbone.params)
  stored = sorted({str(leaf.dtype) for leaf in leaves})
  place = [str(leaves[0].sharding), jax.devices()[0].device_kind, jax.__version__]
  model = (backbone.fingerprint, backbone.config, backbone.vocabulary.sha256, stored)
  return answers_key(
    __version__, model, place, setup.lengths, of_task, setup.task.source, examples_digest(examples)
  )
