"""`prompt-jax compare`: compares two systems on the same examples."""

import argparse

from rich.console import Console

from prompt_jax.runs.compare import compare


def run(args: argparse.Namespace) -> None:
  compare(
    args.a,
    args.b,
    metric=args.metric,
    vocabulary=args.vocabulary,
    examples=args.examples,
    resamples=args.resamples,
    console=Console(),
  )
