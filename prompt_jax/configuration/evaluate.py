"""The configuration of an evaluation."""

from prompt_jax.configuration import config
from prompt_jax.configuration.config import Configured, Request
from prompt_jax.runs.evaluate import evaluate
from prompt_jax.runs.task_choice import for_prompts


def load(request: Request) -> Configured:
  """The arguments of `evaluate`.

  Raises:
    UserError: see `config.load`.
  """
  found = config.load('eval', evaluate, request)
  chosen = for_prompts(found.arguments['choose_task'].keywords)
  return Configured({**found.arguments, 'choose_task': chosen}, found.record)
