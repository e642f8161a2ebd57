"""The report in files: a page, Markdown, CSV, and every picture as a PNG."""

import os
import pathlib
from collections.abc import Iterable, Sequence

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.reports import columns, parts, text
from prompt_jax.reports.columns import ReportTable
from prompt_jax.reports.page import counted, page
from prompt_jax.reports.plots import Picture
from prompt_jax.reports.runs import FoundRuns
from prompt_jax.reports.sections import Section, references

PICTURES = 'pictures'


def write(
  folder: str | os.PathLike,
  found: FoundRuns,
  table: ReportTable,
  grouped: ReportTable | None,
  sections: Sequence[Section],
) -> list[pathlib.Path]:
  """Writes report.html, report.md, runs.csv, pictures/*.png, and if there are any, parts.csv (the
  tasks of mixtures and languages) and groups.csv.

  Args:
    folder: for all of them; created.
    found: see `page`.
    table: see `page`.
    grouped: see `page`.
    sections: see `page`.

  Returns:
    The first three.

  Raises:
    UserError: the folder cannot be written.
  """
  folder = pathlib.Path(folder)
  files = _named(p for s in sections for p in _pictures(s))
  for name, picture in files:
    write_atomically(folder / PICTURES / name, picture.png)
  texts = {
    'report.html': page(found, table, grouped, sections),
    'report.md': markdown(found, table, grouped, sections, files),
    'runs.csv': text.to_csv(table),
  }
  several = [run for run in found.runs if parts.parts(run)]
  if several:
    texts['parts.csv'] = text.to_csv(parts.long_table(several))
  if grouped:
    texts['groups.csv'] = text.to_csv(grouped)
  for name, content in texts.items():
    # Names of files may hold halves of characters, which UTF-8 does not have.
    write_atomically(folder / name, content.encode('utf-8', 'backslashreplace'))
  return [folder / name for name in list(texts)[:3]]


def _pictures(section: Section) -> list[Picture]:
  return [*section.pictures, *(p for answers in section.answers for p in answers.pictures)]


def _named(pictures: Iterable[Picture]) -> list[tuple[str, Picture]]:
  """A file name for each, numbered where two would have the same."""
  names: dict[str, Picture] = {}
  for picture in pictures:
    name, n = f'{picture.stem}.png', 1
    while name.lower() in {taken.lower() for taken in names}:
      n += 1
      name = f'{picture.stem}-{n}.png'
    names[name] = picture
  return list(names.items())


def markdown(
  found: FoundRuns,
  table: ReportTable,
  grouped: ReportTable | None,
  sections: Sequence[Section],
  files: Sequence[tuple[str, Picture]],
) -> str:
  """The same as text, with links to the pictures."""
  shared, rest = columns.parted(table)
  blocks = [
    '# Runs',
    text.escaped(counted(found)),
    text.escaped(text.sentence(list(shared.items()))),
  ]
  blocks.append(text.to_markdown(rest))
  if found.unreadable:
    blocks.append(f'## Could not be read: {len(found.unreadable)}')
    blocks.append(
      '\n'.join(f'- {text.escaped(str(u.path))}: {text.escaped(u.why)}' for u in found.unreadable)
    )
  if grouped:
    common, rest = columns.parted(grouped)
    head, said = ', '.join(map(text.title, grouped.by)), text.sentence(list(common.items()))
    blocks += [f'## By {text.escaped(head)}', text.escaped(said), text.to_markdown(rest)]
  if found.references:
    blocks += ['## Baselines', text.to_markdown(references(found))]
  for section in sections:
    blocks.append(f'## {text.escaped(section.task)}')
    mine = _pictures(section)
    for name, picture in files:
      if any(picture is p for p in mine):
        blocks.append(f'![{text.escaped(picture.alt)}]({PICTURES}/{name})')
    for parted in section.tables:
      blocks += [f'### Scores by {parted.names[0]}', text.to_markdown(parted)]
  return '\n\n'.join(b.strip('\n') for b in blocks if b) + '\n'
