"""`prompt-jax sweep`: its flags as settings of a sweep."""

import argparse
import pathlib

from prompt_jax.configuration import config
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes
from prompt_jax.sweeps.sweep import sweep


def run(args: argparse.Namespace) -> None:
  processes.refuse_multiple('sweep')
  if args.file is not None:
    args.gin_file.insert(0, args.file)
  if not args.gin_file:
    raise UserError('Give a gin file with lists of what varies; gin/runs/sweep.gin names them.')
  config.load(args, sweep)
  sweep(again=_again(args), **config.built(sweep))


def _again(args: argparse.Namespace) -> list[str]:
  """The command line of the sweep once more, from anywhere."""
  files = [f'--gin_file={pathlib.Path(name).absolute()}' for name in args.gin_file]
  search = [f'--gin_search_paths={args.gin_search_paths}'] if args.gin_search_paths else []
  named = [f'--output={args.output}'] if args.output else []
  switch = ['--together'] if args.together else []
  return ['sweep', *files, *search, *(f'--gin.{n}={v}' for n, v in args.gin), *named, *switch]
