"""`prompt-jax eval`: its flags as settings of an evaluation."""

import argparse

from prompt_jax.configuration import config
from prompt_jax.runs.evaluate import evaluate
from prompt_jax.runtime import processes


def run(args: argparse.Namespace) -> None:
  bound = config.load(args, evaluate)
  with processes.distributed(args.coordinator, args.processes, args.process):
    bound()
