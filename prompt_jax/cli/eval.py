"""`prompt-jax eval`: its flags as settings of an evaluation."""

import argparse

from rich.console import Console

from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config
from prompt_jax.runs.evaluate import evaluate
from prompt_jax.runtime import processes


def run(args: argparse.Namespace) -> None:
  with processes.distributed(args.coordinator, args.processes, args.process):
    found = config.load('eval', evaluate, request_of(args))
    evaluate(**found.arguments, record=found.record, console=Console())
