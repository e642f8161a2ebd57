"""Compares two systems on the same examples, from the predictions that they wrote."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from prompt_jax.checkpoints import on_disk
from prompt_jax.data.table import fail, read_table
from prompt_jax.data.vocabulary import Vocabulary, load_vocabulary
from prompt_jax.errors import UserError
from prompt_jax.evaluation import comparison, metrics
from prompt_jax.evaluation.bootstrap import LEVEL
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.runs.results import ComparisonResult
from prompt_jax.runs.setup import console_of

FILE = 'predictions.jsonl'
FIELDS = {field.name for field in dataclasses.fields(Prediction)}
NEEDED = ('input', 'target', 'prediction', 'correct')


def compare(
  a: str,
  b: str,
  *,
  metric: Sequence[str] | None,
  vocabulary: str | None,
  examples: int,
  resamples: int,
  console: Console | None = None,
) -> ComparisonResult:
  """Compares the scores of both, and shows where they differ.

  Args:
    a: an output folder, or a file of predictions.
    b: another one, for the same examples.
    metric: names of metrics; None for those in the results.json next to the predictions.
    vocabulary: a SentencePiece model, for metrics that read its tokens.
    examples: how many to show of those that only one of them answers correctly.
    resamples: of the paired bootstrap.
    console: where to print; None is silent.

  Raises:
    UserError: a file is missing or damaged, or the examples differ.
  """
  console = console_of(console)
  first, second = _files(a), _files(b)
  if first.keys() != second.keys():
    have = [', '.join(found) or 'one run' for found in (first, second)]
    raise UserError(f'{a} has {have[0]}, and {b} has {have[1]}; give runs with the same seeds.')
  read = {name: (_read(first[name]), _read(second[name])) for name in first}
  for ours, theirs in read.values():
    comparison.check_pairs(ours, theirs)
  words = load_vocabulary(vocabulary) if vocabulary else None
  console.print(f'A: {a}\nB: {b}', highlight=False, markup=False, soft_wrap=True)
  differences = {}
  for name, (ours, theirs) in read.items():
    facts = _facts(first[name]) or _facts(second[name])
    if metric:
      of_all = {'metrics': list(metric)}
      facts = {t: {**comparison.about_task(facts, t), **of_all} for t in comparison.tasks(ours)}
    _refuse_without_vocabulary(facts, words)
    differences[name] = found = comparison.differences(
      ours, theirs, facts, resamples, vocabulary=words
    )
    title = (
      f'{len(ours)} examples; scores in percent; {100 * LEVEL:.0f} % intervals from {resamples} '
      'bootstrap resamples'
    )
    _show(found, f'{name}: {title}' if name else title, console)
    _tests(ours, theirs, facts, console)
    _examples(ours, theirs, examples, console)
  return ComparisonResult(a, b, differences)


def _refuse_without_vocabulary(
  facts: Mapping[str, Mapping[str, Any]], vocabulary: Vocabulary | None
) -> None:
  """Refuses a metric that needs a vocabulary where none is given."""
  names = [name for about in facts.values() for name in about['metrics']]
  if vocabulary is None and (asked := metrics.needing('vocabulary', names)):
    raise UserError(
      f'{asked[0]} compares the tokens of a vocabulary: give one, a SentencePiece model, or '
      'another metric.',
      parameters=['vocabulary', 'metric'],
    )


def _files(path: str) -> dict[str, pathlib.Path]:
  """The file of predictions; with several seeds {"seed_0": file, ...}."""
  given = pathlib.Path(path)
  if given.is_file():
    return {'': given}
  if (given / FILE).is_file():
    return {'': given / FILE}
  if not given.exists():
    raise UserError(f'There is no {path}. Give two folders of train or eval, or two files.')
  seeds = {file.parent.name: file for file in sorted(given.glob(f'seed_*/{FILE}'))}
  if not seeds:
    raise UserError(
      f'No {FILE} in {path}. Give an output folder of train or eval, or a file of predictions.'
    )
  return seeds


def _read(path: pathlib.Path) -> list[Prediction]:
  """The predictions of a file.

  Raises:
    UserError: it is missing, damaged, or holds something else.
  """
  on_disk.check(path)
  found = []
  for row in read_table(path).rows:
    missing = [name for name in NEEDED if name not in row.values]
    if missing:
      fail(path, row.line, f'no {missing[0]!r}: this is no file of predictions of train or eval.')
    known = {k: v for k, v in row.values.items() if k in FIELDS}
    found.append(Prediction(**{'scores': {}, **known}))
  return found


def _facts(file: pathlib.Path) -> dict[str, dict[str, Any]]:
  """The tasks in the results.json next to the predictions; {} without such a file."""
  for folder in (file.parent, file.parent.parent):
    if (folder / 'results.json').is_file():
      on_disk.check(folder / 'results.json')
      return on_disk.read_json(folder / 'results.json').get('tasks', {})
  return {}


def _show(found: Mapping[str, comparison.Difference], title: str, console: Console) -> None:
  table = Table(title=title, title_justify='left', title_style='bold')
  for name in ('score', 'A', 'B', 'B - A', 'interval'):
    table.add_column(name, justify='left' if name == 'score' else 'right')
  for name, d in found.items():
    interval = '-' if d.interval is None else f'{d.interval[0]:+.1f} to {d.interval[1]:+.1f}'
    change = f'{d.second - d.first:+.1f}'
    table.add_row(name, f'{d.first:.1f}', f'{d.second:.1f}', change, interval)
  console.print(table)


def _tests(
  first: Sequence[Prediction],
  second: Sequence[Prediction],
  facts: Mapping[str, Mapping[str, Any]],
  console: Console,
) -> None:
  """One line for each task: how often both, one or neither is correct, and McNemar's test."""
  parts = comparison.tasks(first)
  for name, mine in parts.items():
    about = comparison.about_task(facts, name)
    ours, theirs = ([side[i] for i in mine] for side in (first, second))
    prefix = f'{name}: ' if len(parts) > 1 else ''
    if about and not comparison.counts_hits(about['metrics'], about.get('labels')):
      differ = sum(a.prediction != b.prediction for a, b in zip(ours, theirs, strict=True))
      console.print(f'{prefix}{differ} answers differ', highlight=False)
      continue
    d = comparison.discordance(ours, theirs)
    console.print(
      f'{prefix}correct: both {d.both}, only A {d.first}, only B {d.second}, neither {d.neither} '
      f"({d.other} with different answers); McNemar's exact test p = {d.p:.3g}",
      highlight=False,
      soft_wrap=True,
    )


def _examples(
  first: Sequence[Prediction], second: Sequence[Prediction], most: int, console: Console
) -> None:
  """Some of the examples that only one of the systems answers correctly."""
  apart = [(a, b) for a, b in zip(first, second, strict=True) if a.correct != b.correct]
  for a, b in apart[:most]:
    console.print()
    for name, text in (
      ('input', a.input),
      ('target', a.target),
      ('A correct' if a.correct else 'A wrong', a.prediction),
      ('B correct' if b.correct else 'B wrong', b.prediction),
    ):
      console.print(f'{name:10}{text}', highlight=False, markup=False, soft_wrap=True)
