"""`prompt-jax methods`: the prompt methods, and what is known of them before a run."""

import argparse
from collections.abc import Sequence

from rich.console import Console

from prompt_jax.configuration.methods import Named, model_config, named_methods
from prompt_jax.errors import UserError
from prompt_jax.method_facts import MethodFacts, method_facts

SIZE = 't5/base'
HEADER = ('method', 'what it is', 'trains', 'adds', 'reads', 'packs', 'exports to')


def run(args: argparse.Namespace) -> None:
  sizes = model_config(SIZE).sizes
  found = [(named, method_facts(named.method, sizes)) for named in named_methods()]
  word = (args.filter or '').lower()
  found = [each for each in found if word in ' '.join(_cells(*each)).lower()]
  if not found:
    raise UserError(f'No method has {args.filter!r} in what the list says of it.')
  if args.markdown:
    print('\n'.join(_markdown([_cells(*each) for each in found])))
    return
  console = Console(highlight=False)
  for each in found:
    name, about, trains, adds, reads, packs, exports = _cells(*each)
    console.print(f'{name}  {about}', soft_wrap=True, markup=False)
    reads = '' if reads == '-' else f'reads {reads}; '
    packs = 'packs' if packs == 'yes' else 'does not pack'
    more = f'{trains} numbers: {adds}; {reads}{packs}; exports to {exports}'
    console.print(f'    {more}', soft_wrap=True, markup=False)
  console.print('Numbers that train: for T5 base, with the settings of gin/prompts.')


def _cells(named: Named, facts: MethodFacts) -> tuple[str, ...]:
  return (
    named.name,
    named.about,
    f'{facts.parameters:,}',
    ', '.join(facts.adds),
    ' '.join(facts.reads) or '-',
    'yes' if facts.packs else 'no',
    ' '.join(facts.exports),
  )


def _markdown(rows: Sequence[Sequence[str]]) -> list[str]:
  line = lambda cells: f'| {" | ".join(cells)} |'
  named = [(f'`{name}`', *rest) for name, *rest in rows]
  return [line(HEADER), line(['---'] * len(HEADER)), *map(line, named)]
