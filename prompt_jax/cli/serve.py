"""`prompt-jax serve`: its flags as settings of a server."""

import argparse

from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config
from prompt_jax.serving.serve import serve


def run(args: argparse.Namespace) -> None:
  serve(args.prompts, **config.load('serve', serve, request_of(args)).arguments)
