"""What the model answers without a prompt: the same for every run on it, so it is kept."""

from collections.abc import Sequence

import jax

from prompt_jax import __version__
from prompt_jax.configuration.description import literal
from prompt_jax.data.example import Example
from prompt_jax.evaluation import kept
from prompt_jax.evaluation.baselines import MAJORITY, UNTUNED, majority_predictions
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.evaluation.metrics import Scores
from prompt_jax.evaluation.predictions import Prediction, progress_bar
from prompt_jax.evaluation.suite import Suite, task_facts
from prompt_jax.evaluation.verdict import Verdict, verdicts
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.runs.setup import JUDGES, Setup, evaluator_of
from prompt_jax.runtime import processes
from prompt_jax.runtime.compilation_cache import kept_folder


def untuned(
  setup: Setup, examples: Sequence[Example], batch_size: int
) -> tuple[Scores, list[Prediction]]:
  """Scores and answers of the model alone, from an earlier run where they depend on the same.

  Args:
    setup: of the run.
    examples: of its task.
    batch_size: examples at once.
  """
  kept_here = setup.task.score is None  # such a measure may change while its name does not
  name = _name(setup, examples) if kept_here else ''

  def earlier() -> tuple[Scores, list[Prediction]] | None:
    folder = kept_folder()
    return kept.read(folder, name, examples) if name and folder else None

  def keep() -> None:
    if name and (folder := kept_folder()):
      kept.write(folder, name, scores, answers)

  if (found := processes.broadcast(earlier)) is not None:
    return found
  evaluator = evaluator_of(setup, PromptedT5(T5(setup.backbone.config)), batch_size)
  variables = {'params': {'backbone': setup.backbone.params}}
  with progress_bar(len(examples), 'the model, untuned', setup.console) as advance:
    scores, answers = evaluator(variables, examples, advance)
  processes.broadcast(keep)
  return scores, answers


def on_validation(
  setup: Setup, evaluator: Evaluator | Suite, metric: str | None, batch_size: int
) -> dict[str, float]:
  """The metric of the majority class and of the untuned model, on the examples of the curve."""
  examples = setup.examples.get(JUDGES)
  if examples is None or metric is None:
    return {}
  found = {UNTUNED: untuned(setup, examples, batch_size)[0]}
  rows = majority_predictions(setup.examples['train'], examples, setup.task)
  if rows is not None and setup.task.score is None:
    found = {MAJORITY: evaluator.measure(examples, rows), **found}
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
  return kept.key(
    __version__, model, place, setup.lengths, of_task, setup.task.source, kept.digest(examples)
  )
