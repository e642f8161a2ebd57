"""`prompt-jax export`: a prompt file in the form of another library."""

import argparse

from rich.console import Console

from prompt_jax.export.prompt import export_prompt


def run(args: argparse.Namespace) -> None:
  console = Console()
  done = export_prompt(
    args.file,
    args.destination,
    args.to,
    model=args.model,
    vocabulary=args.vocabulary,
    base_model=args.base_model,
    console=console,
  )
  form = 'PEFT folder' if args.to == 'peft' else args.to
  console.print(f'{form}: {done.path}', soft_wrap=True, highlight=False)
  if done.base:
    console.print(done.base, soft_wrap=True, highlight=False, markup=False)
  if done.combine:
    console.print(
      f'The file does not say where the rows go ({done.placement}). In google-research/'
      f'prompt-tuning: combine = {done.combine}; here: import --placement.',
      soft_wrap=True, highlight=False,
    )  # fmt: skip
