"""`prompt-jax train`: its flags as settings of a run."""

import argparse
from collections.abc import Callable
from typing import Any

from prompt_jax.configuration import config
from prompt_jax.errors import UserError
from prompt_jax.runs.train import train
from prompt_jax.runtime import processes


def run(args: argparse.Namespace) -> None:
  bound = load(args)
  with processes.distributed(args.coordinator, args.processes, args.process):
    bound()


def load(args: argparse.Namespace) -> Callable[..., Any]:
  """`train` with its arguments bound, once everything that was given is read."""
  includes = []
  if args.train == ['all']:
    for name in ('prompt', 'init', 'length'):
      if getattr(args, name) is not None:
        raise UserError(f'--{name} is of a prompt, and --train all tunes the model without one.')
    includes.append(('runs', 'model_tuning'))
    args.train = None
  elif args.train is not None:
    args.train = ['prompt/.*' if p == 'prompt' else p for p in args.train]
  includes += [('prompts', args.prompt)] if args.prompt else []
  includes += [('inits', args.init)] if args.init else []
  return config.load(args, train, includes)
