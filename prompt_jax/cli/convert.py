"""`prompt-jax convert`: a frozen model in another form."""

import argparse

from prompt_jax.configuration import config
from prompt_jax.runs.convert import convert
from prompt_jax.runtime import processes


def run(args: argparse.Namespace) -> None:
  processes.refuse_multiple('convert')
  config.load(args, convert)(args.source, args.dest)
