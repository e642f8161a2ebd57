"""`prompt-jax infer`: its flags as settings of a prediction, and the answers as lines."""

import argparse
import sys
from collections.abc import Sequence

from prompt_jax.cli.arguments import request_of
from prompt_jax.configuration import config
from prompt_jax.data.table import decode, lines_of
from prompt_jax.runs.predict import infer
from prompt_jax.runs.results import Answer
from prompt_jax.runtime import processes


def run(args: argparse.Namespace) -> None:
  with processes.distributed(args.coordinator, args.processes, args.process):
    arguments = config.load('infer', infer, request_of(args)).arguments
    texts = args.texts
    if not texts and not arguments['file'] and processes.is_first() and not sys.stdin.isatty():
      texts = lines_of(decode(sys.stdin.buffer.read(), 'standard input'))
    answers = infer(texts, **arguments)
    if processes.is_first():
      _print(answers, arguments['output'])


def _print(answers: Sequence[Answer], output: str | None) -> None:
  if output is not None:
    print(f'{len(answers)} answers: {output}')
    return
  for a in answers:
    share = '' if a.probability is None else f'\t{a.probability:.3f}\t{a.text}'
    # One line an answer, whatever is in it.
    print(f'{a.prediction}{share}'.replace('\r', ' ').replace('\n', ' '))
