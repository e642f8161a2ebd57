"""`prompt-jax export`: prompts in the form of another library."""

import argparse
import pathlib

from rich.console import Console

from prompt_jax.data.table import decode, lines_of
from prompt_jax.errors import UserError
from prompt_jax.export.prompt import export_prompt


def run(args: argparse.Namespace) -> None:
  console = Console()
  done = export_prompt(
    args.files,
    args.destination,
    args.to,
    names=args.names,
    model=args.model,
    vocabulary=args.vocabulary,
    base_model=args.base_model,
    quantize=args.quantize,
    samples=args.samples and _lines(args.samples),
    least_agreement=args.least_agreement,
    console=console,
  )
  form = 'PEFT folder' if args.to == 'peft' else args.to
  if done.prompts:
    form = f'{form} ({", ".join(done.prompts)})'
  console.print(f'{form}: {done.path}', soft_wrap=True, highlight=False, markup=False)
  if done.base:
    console.print(done.base, soft_wrap=True, highlight=False, markup=False)
  if done.combine:
    console.print(
      f'The file does not say where the rows go ({done.placement}). In google-research/'
      f'prompt-tuning: combine = {done.combine}; here: import --placement.',
      soft_wrap=True, highlight=False,
    )  # fmt: skip


def _lines(path: str) -> list[str]:
  """The texts of a file, a line each."""
  try:
    data = pathlib.Path(path).read_bytes()
  except OSError as e:
    raise UserError(f'Cannot read {path}: {e.strerror or e}.', ['samples']) from None
  return [line for line in lines_of(decode(data, path)) if line.strip()]
