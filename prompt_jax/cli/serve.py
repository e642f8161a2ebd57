"""`prompt-jax serve`: its flags as settings of a server."""

import argparse

from prompt_jax.cli.arguments import given, request_of
from prompt_jax.configuration.run_files import settings_of
from prompt_jax.errors import UserError


def run(args: argparse.Namespace) -> None:
  if args.engine == 'ctranslate2':
    _run_without_jax(args)
    return
  from prompt_jax.configuration import config
  from prompt_jax.serving.serve import serve

  serve(args.prompts, **config.load('serve', serve, request_of(args)).arguments)


def _run_without_jax(args: argparse.Namespace) -> None:
  """An export on its own engine; gin, which would import JAX, is left out."""
  from prompt_jax.serving import serve_ctranslate2

  flags = {setting.name: value for setting, value in given(args)}
  others = [f'--{name}' for name in flags if name not in serve_ctranslate2.SETTINGS]
  others += ['gin'] if args.gin or args.gin_file else []
  if others:
    known = ', '.join(f'--{name}' for name in serve_ctranslate2.SETTINGS)
    raise UserError(
      f'{", ".join(others)} has no effect with --engine ctranslate2, whose folder has its model '
      f'and prompts; known: {known}.'
    )
  settings = {s.name: s.default for s in settings_of('serve').values()} | flags
  serve_ctranslate2.serve(args.prompts, **{n: settings[n] for n in serve_ctranslate2.SETTINGS})
