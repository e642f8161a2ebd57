"""`prompt-jax import`: a prompt of another library as a prompt file."""

import argparse

from prompt_jax.runs.import_prompt import import_prompt


def run(args: argparse.Namespace) -> None:
  labels = [label.strip() for label in args.labels.split(',')] if args.labels else None
  done = import_prompt(
    args.source,
    args.destination,
    model=args.model,
    vocabulary=args.vocabulary,
    labels=labels,
    placement=args.placement,
  )
  print(f'{done.form}, {done.what}, for {done.base_model} ({done.fingerprint}): {done.path}')
  print(f'Use it: {done.command}')
