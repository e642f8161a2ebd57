"""What was typed, as a request of the configuration."""

import argparse

from prompt_jax.cli import arguments
from prompt_jax.configuration.config import Request
from prompt_jax.configuration.run_files import CHOSEN


def request_of(args: argparse.Namespace) -> Request:
  """The flags as settings by macro, and what was given as gin text.

  Args:
    args: of the verb, see `arguments.parse`.
  """
  flags = arguments.given(args)
  settings = {setting.macro: value for setting, value in flags}
  origins = {setting.macro: f'--{setting.name}' for setting, _ in flags}
  for name, chosen in CHOSEN.items():
    if getattr(args, name, None) is not None:
      settings[chosen.macro], origins[chosen.macro] = getattr(args, name), f'--{name}'
  return Request(
    settings=settings,
    bindings=args.gin,
    files=args.gin_file,
    search=[folder for folder in args.gin_search_paths.split(',') if folder],
    origins=origins,
    command=args.command,
  )
