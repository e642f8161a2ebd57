"""The scores of a population: prompts of one model and task in one pass over the examples."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.evaluation.evaluator import Evaluator
from prompt_jax.evaluation.predictions import Prediction, progress_bar
from prompt_jax.evaluation.suite import Suite
from prompt_jax.prompted import variables_of
from prompt_jax.runs.candidates import Candidate
from prompt_jax.runs.setup import JUDGES, evaluator_of
from prompt_jax.runtime import processes
from prompt_jax.stacking import group_by_structure
from prompt_jax.training import objective
from prompt_jax.training.choice import choose_on_all
from prompt_jax.training.members import Result, metric_value

Scored = tuple[dict[str, float], list[Prediction]]


class PopulationScores:
  """Evaluates prompts of a population; compiles once for each model, task and number of prompts."""

  def __init__(
    self,
    candidates: Sequence[Candidate],
    patterns: Sequence[str],
    batch_size: int,
    at_once: int | None,
  ):
    """Args: the population, what trains in it, examples of a batch and prompts on one."""
    self._candidates, self._patterns = candidates, patterns
    self._evaluators: dict[Any, Evaluator | Suite] = {}
    for c in candidates:
      key = self._key(c)
      if key not in self._evaluators:
        self._evaluators[key] = evaluator_of(c.setup, c.setup.model, batch_size, at_once)

  def of(self, members: Sequence[int], params: Sequence[Any], split: str) -> list[Scored]:
    """Scores and predictions of some members on one split.

    Args:
      members: their numbers.
      params: the parameters of each prompt.
      split: "validation" or "test", or `JUDGES`.
    """
    found: list[Any] = [None] * len(members)
    chosen = [self._candidates[k] for k in members]
    for group in group_by_structure(params, [self._key(c) for c in chosen]):
      first = chosen[group[0]]
      variables = [
        variables_of(
          {'backbone': first.setup.backbone.params, 'prompt': params[i]},
          chosen[i].member.constants,
        )
        for i in group
      ]
      if first.setup.placement:
        variables = first.setup.placement.replicate(variables)
      evaluator = self._evaluators[self._key(first)]
      examples = first.setup.examples[split]
      title = f'{split if split != JUDGES else "validation"}, {len(group)} prompts'
      with progress_bar(len(examples), title, first.setup.console) as advance:
        scored = evaluator.each(variables, examples, advance)
      for i, one in zip(group, scored, strict=True):
        found[i] = one
    return found

  def validation(
    self, members: Sequence[int], trainables: Sequence[Any]
  ) -> list[Mapping[str, float]]:
    """Metrics of some members from the leaves that train; for `loop.train_members`."""
    params = []
    for k, trainable in zip(members, trainables, strict=True):
      own = objective.split({'prompt': self._candidates[k].member.prompt}, self._patterns)[1]
      params.append(objective.merge(trainable, own)['prompt'])
    return [scores for scores, _ in self.of(members, params, JUDGES)]

  def chosen(self, results: Sequence[Result], mode: str) -> list[Result]:
    """The results, with each best step chosen on all validation examples if a sample chose."""
    setups = [c.setup.examples for c in self._candidates]
    sampled = [
      k for k, e in enumerate(setups) if len(e.get(JUDGES, ())) < len(e.get('validation', ()))
    ]
    found = list(results)
    for number in {len(setups[k]['validation']) for k in sampled}:
      mine = [k for k in sampled if len(setups[k]['validation']) == number]

      def measure(files: Sequence[tuple[int, pathlib.Path]]) -> list[float]:
        params = processes.broadcast(lambda: [load_prompt(path).params for _, path in files])
        members = [mine[k] for k, _ in files]  # noqa: B023
        scored = self.of(members, params, 'validation')
        names = [self._candidates[k].member.metric or '' for k in members]
        return [metric_value(s, n) for (s, _), n in zip(scored, names, strict=True)]

      console = self._candidates[mine[0]].setup.console
      again = choose_on_all([results[k] for k in mine], measure, mode, number, console)
      for k, result in zip(mine, again, strict=True):
        found[k] = result
    return found

  def measure(
    self, member: int, split: str, predictions: Sequence[Prediction]
  ) -> Mapping[str, float]:
    """Metrics of other predictions for the examples of a member's task."""
    c = self._candidates[member]
    return self._evaluators[self._key(c)].measure(c.setup.examples[split], predictions)

  def _key(self, candidate: Candidate) -> Any:
    # A name is not enough: settings may draw other examples of a task, or read another file.
    task = candidate.setup.task
    asked = tuple((s, n) for s, n in candidate.digests.items() if s != 'train')
    return task.name, task.labels, asked, candidate.member.objective
