"""`prompt-jax report`: compares many runs in tables, plots and an HTML page."""

import argparse
import dataclasses

from rich.console import Console

from prompt_jax.errors import UserError
from prompt_jax.reports import columns, parts, text
from prompt_jax.reports.columns import COLUMNS, ReportTable
from prompt_jax.reports.find import find
from prompt_jax.reports.runs import FoundRuns
from prompt_jax.reports.sections import sections
from prompt_jax.reports.write import write

# Columns that a narrow terminal leaves out first; the files have all columns.
SPARED = ('verb', 'seconds', 'parameters', 'split', 'rows', 'seeds', 'trained', 'learning_rate')


def run(args: argparse.Namespace) -> None:
  console = Console()
  found = find(args.folders)
  names = args.columns or columns.usual(found.runs)
  asked = [args.sort.removeprefix('-')] if args.sort else []
  group_by = args.group_by or []
  columns.check_names([*names, *asked, *group_by], found.runs)
  found = dataclasses.replace(found, runs=tuple(columns.sorted_by(found.runs, args.sort)))
  table = columns.table(found.runs, names)
  grouped = None
  if group_by:
    grouped = columns.grouped_table(found.runs, names, group_by)
    grouped = columns.with_sorted_rows(grouped, args.sort)
  _show(found, grouped or table, bool(args.columns), console)
  if args.output:
    made, unreadable = sections(found, group_by)
    found = dataclasses.replace(found, unreadable=(*found.unreadable, *unreadable))
    files = write(args.output, found, table, grouped, made)
    console.print(
      '\n'.join(f'Written: {path}' for path in files), soft_wrap=True, highlight=False, markup=False
    )
  _unread(found, console)


def _show(found: FoundRuns, table: ReportTable, chosen: bool, console: Console) -> None:
  """Prints runs, or groups of them, and the tables of several tasks."""
  if not found.runs:
    return
  shared, rest = ({}, table) if chosen else columns.parted(table)
  notes = [] if chosen else [run for run in found.runs if run.note]
  if not chosen:
    rest = ReportTable(tuple(n for n in rest.names if n != 'note'), rest.rows, rest.by)
  n = len(found.runs)
  heading = f'{n} run{"" if n == 1 else "s"}, scores in percent'
  scores = [n for n in rest.names if n not in COLUMNS]
  left_out = text.print_table(
    rest, heading, console, () if chosen else (*SPARED, *reversed(scores[1:]))
  )
  said = [text.sentence(list(shared.items()))]
  if left_out:
    said.append(
      f'The terminal is too narrow for the columns {", ".join(map(text.title, left_out))}. Choose '
      'columns with --columns, or write all of them with --output DIR.'
    )
  said += [text.printable(f'{run.name}: {run.note}') for run in notes]
  for line in filter(None, said):
    console.print(line, soft_wrap=True, highlight=False, markup=False)
  if not chosen:
    for group in parts.group_by_tasks(found.runs):
      task = text.printable(f'{group[0].task}, {group[0].split}')
      text.print_table(parts.score_table(group), task, console)


def _unread(found: FoundRuns, console: Console) -> None:
  """Names all that could not be read; an error if nothing could."""
  lines = [text.printable(f'{u.path}: {u.why}') for u in found.unreadable]
  if not found.runs:
    raise UserError(f'None of the runs could be read. {"; ".join(lines)}')
  if lines:
    print(f'Could not be read: {len(lines)}', *lines, sep='\n  ')
