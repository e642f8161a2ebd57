"""`prompt-jax population`: its flags as settings of many prompts."""

import argparse

from rich.console import Console

from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import population as configuration
from prompt_jax.runs.population import population
from prompt_jax.runtime import processes


def run(args: argparse.Namespace) -> None:
  with processes.distributed(args.coordinator, args.processes, args.process):
    found = configuration.load(request_of(args))
    population(**found.arguments, record=found.record, console=Console())
