"""`prompt-jax infer`: its flags as settings of a prediction."""

import argparse

from prompt_jax.configuration import config
from prompt_jax.runs.predict import infer
from prompt_jax.runtime import processes


def run(args: argparse.Namespace) -> None:
  includes = [('decoding', args.decoding)] if args.decoding else []
  bound = config.load(args, infer, includes)
  with processes.distributed(args.coordinator, args.processes, args.process):
    bound(args.texts)
