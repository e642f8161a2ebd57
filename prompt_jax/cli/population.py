"""`prompt-jax population`: its flags as settings of many prompts."""

import argparse
from collections.abc import Callable
from typing import Any

from prompt_jax.configuration import config
from prompt_jax.errors import UserError
from prompt_jax.runs.population import population
from prompt_jax.runtime import processes

# A flag for all prompts, and the one that gives several values.
ONE_OR_SEVERAL = {'learning_rate': 'learning_rates', 'length': 'lengths', 'init': 'inits'}


def run(args: argparse.Namespace) -> None:
  bound = load(args)
  with processes.distributed(args.coordinator, args.processes, args.process):
    bound()


def load(args: argparse.Namespace) -> Callable[..., Any]:
  """`population` with its arguments bound, once everything that was given is read."""
  for one, several in ONE_OR_SEVERAL.items():
    if getattr(args, one) is not None and getattr(args, several) is not None:
      raise UserError(
        f'--{one} is for all prompts, and --{several} gives each its own. Leave one of them out.'
      )
  includes = [('prompts', args.prompt)] if args.prompt else []
  includes += [('inits', args.init)] if args.init else []
  return config.load(args, population, includes)
