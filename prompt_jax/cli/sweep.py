"""`prompt-jax sweep`: its flags as settings of a sweep."""

import argparse
import pathlib

from rich.console import Console

from prompt_jax.cli import arguments
from prompt_jax.cli.arguments import request_of
from prompt_jax.cli.sweep_jobs import resolver
from prompt_jax.configuration import config
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes
from prompt_jax.sweeps.sweep import sweep

# Settings of the sweep as a whole, which a job on a cluster is not started with again.
NOT_OF_A_JOB = ('CLUSTER', 'TOPOLOGY', 'TOO_LARGE', 'DRY_RUN', 'PLAN', 'JOB')


def run(args: argparse.Namespace) -> None:
  processes.refuse_multiple('sweep')
  if args.file is not None:
    args.gin_file.insert(0, args.file)
  if not args.gin_file and not arguments.given(args):
    raise UserError('Give a gin file with lists of what varies, or flags such as --learning_rates.')
  found = config.load('sweep', sweep, request_of(args))
  sweep(**found.arguments, again=_again(args), resolver=resolver(), console=Console())


def _again(args: argparse.Namespace) -> list[str]:
  """The command line of the sweep once more, from anywhere."""
  files = [f'--gin_file={pathlib.Path(name).absolute()}' for name in args.gin_file]
  search = [f'--gin_search_paths={args.gin_search_paths}'] if args.gin_search_paths else []
  settings = [
    f'--{s.name}'
    if s.switch
    else f'--{s.name}={v}'
    if isinstance(v, str)
    else f'--gin.{s.macro}={v!r}'
    for s, given in arguments.given(args)
    for v in (s.value(given),)
    if s.macro not in NOT_OF_A_JOB
  ]
  return ['sweep', *files, *search, *(f'--gin.{n}={v}' for n, v in args.gin), *settings]
