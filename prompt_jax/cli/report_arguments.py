"""The arguments of `prompt-jax report`. Imports nothing heavy."""

import argparse

from prompt_jax.cli.flag_types import listed


def add_to(sub: argparse.ArgumentParser) -> None:
  """Folders, and how their runs are shown."""
  names = listed(str, '')
  sub.add_argument('folders', nargs='+', metavar='FOLDER', help='of runs, at any depth')
  sub.add_argument(
    '--output', metavar='DIR', help='write report.html, report.md, runs.csv and pictures there'
  )
  sub.add_argument(
    '--columns', type=names, metavar='A,B', help='columns, scores or settings (STEPS) to show'
  )
  sub.add_argument(
    '--sort', metavar='NAME', help='order by a column; --sort=-accuracy: the greatest first'
  )
  sub.add_argument(
    '--group_by',
    type=names,
    metavar='A,B',
    help='put runs together that are equal in columns or settings',
  )
