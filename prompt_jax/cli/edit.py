"""`prompt-jax edit`: a prompt file made of finished ones."""

import argparse

from prompt_jax import loading
from prompt_jax.checkpoints.backbone import EMBEDDED
from prompt_jax.checkpoints.prompt_file import load_facts
from prompt_jax.transfer.edit import edit_prompt


def run(args: argparse.Namespace) -> None:
  place = edit_prompt(
    args.operation, args.files, args.destination, weights=args.weights, rows=args.rows
  )
  about = load_facts(place).metadata
  print(f'{about["method"]}, {about["length"]} rows, for {about["base_model"]}: {place}')
  command = loading.command(place, about.get('model') or EMBEDDED, about.get('vocabulary_file'))
  print(f'Use it: {command}')
