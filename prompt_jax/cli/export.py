"""`prompt-jax export`: a prompt file in the form of another library."""

import argparse

from prompt_jax.export.prompt import export_prompt


def run(args: argparse.Namespace) -> None:
  export_prompt(
    args.file,
    args.destination,
    args.to,
    model=args.model,
    vocabulary=args.vocabulary,
    base_model=args.base_model,
  )
