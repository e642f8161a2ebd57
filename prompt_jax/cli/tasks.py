"""`prompt-jax tasks`: what can be learned by name, and what it looks like."""

import argparse
import textwrap

from rich.console import Console

from prompt_jax.checkpoints.backbone import vocabulary_of
from prompt_jax.data.example import Lengths
from prompt_jax.data.recorded import record
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from prompt_jax.tasks import find

# In bytes; long enough that nothing of what is shown was cut.
LENGTHS = Lengths(100_000, 100_000)


def run(args: argparse.Namespace) -> None:
  console = Console(highlight=False)
  if args.name is None and args.record:
    raise UserError('--record needs the task: prompt-jax tasks NAME --record FILE')
  if args.name is None:
    for name, make in find.EMBEDDED.items():
      console.print(f'[bold]{name}[/bold]  {make().about}', soft_wrap=True)
    console.print(
      "\nThrough tensorflow-datasets (pip install 'prompt_jax[seqio]'), each also taskless_NAME:",
      markup=False,
    )
    console.print(f'  {", ".join(find.downloaded())}')
    console.print('\nA folder of JSON Lines files: --task NAME --folder DIR', soft_wrap=True)
    console.print('A file of your own: --data FILE', soft_wrap=True)
    return
  task = find.find(args.name, args.folder, args.module)
  if args.record:
    lengths = Lengths(args.input_length, args.target_length)
    words = vocabulary_of(args.model, args.vocabulary)
    record(args.record, task, list(task.splits), words, lengths)
    console.print(f'Recorded {", ".join(task.splits)} of {task.name} in {args.record}')
    return
  console.print(f'[bold]{task.name}[/bold]  {task.about}', soft_wrap=True)
  console.print(f'metrics: {", ".join(task.metrics)}')
  if task.labels:
    console.print(f'labels: {", ".join(task.labels)}', markup=False, soft_wrap=True)
  for split in task.splits:
    examples = task.load(split, ByteVocabulary(), LENGTHS)
    console.print(f'\n{split}: {len(examples)} examples')
    for example in examples[: args.examples]:
      text = textwrap.shorten(example.inputs_text, 300, placeholder=' ...')
      console.print(f'  {text}\n    -> {example.targets_text}', markup=False, soft_wrap=True)
