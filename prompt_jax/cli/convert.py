"""`prompt-jax convert`: a frozen model in another form."""

import argparse

from rich.console import Console

from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config
from prompt_jax.export.convert import convert
from prompt_jax.runtime import processes


def run(args: argparse.Namespace) -> None:
  processes.refuse_multiple('convert')
  found = config.load('convert', convert, request_of(args))
  convert(args.source, args.dest, **found.arguments, console=Console())
