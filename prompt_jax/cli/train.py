"""`prompt-jax train`: its flags as settings of a run."""

import argparse

from rich.console import Console

from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config
from prompt_jax.runs.train import train
from prompt_jax.runtime import processes


def run(args: argparse.Namespace) -> None:
  with processes.distributed(args.coordinator, args.processes, args.process):
    found = config.load('train', train, request_of(args))
    train(**found.arguments, record=found.record, console=Console())
