"""The report as one page of HTML that needs no other file and no network."""

import base64
import math
import pathlib
import string
from collections.abc import Iterable, Sequence
from html import escape

from prompt_jax.reports import columns, text
from prompt_jax.reports.answers import Answer
from prompt_jax.reports.columns import ReportTable, Value
from prompt_jax.reports.plots import Picture
from prompt_jax.reports.runs import UNFINISHED, FoundRuns, Unreadable
from prompt_jax.reports.sections import RunAnswers, Section, references
from prompt_jax.training.records import MeanStd

TEMPLATE = pathlib.Path(__file__).with_name('page.html')
TITLE = 'prompt-jax report'
LONGEST = 300  # letters of an input that are shown
WIDE = ('folder', 'method', 'note')  # columns whose texts may be broken


def page(
  found: FoundRuns, table: ReportTable, grouped: ReportTable | None, sections: Sequence[Section]
) -> str:
  """The whole page.

  Args:
    found: runs in their order, references, and what cannot be read, predictions among it.
    table: one row a run.
    grouped: runs put together; None unless asked for.
    sections: one a task.
  """
  shared, rest = columns.parted(table)
  body = _results(sections)
  body += ['<h2 id="runs">Runs</h2>', _said(text.sentence(list(shared.items()))), _table(rest)]
  body += unreadable(found.unreadable)
  if grouped:
    common, rest = columns.parted(grouped)
    body += [
      f'<h2 id="groups">By {_text(", ".join(map(text.title, grouped.by)))}</h2>',
      _said(text.sentence(list(common.items()))),
    ]
    body.append(_table(rest))
  if found.references:
    body += ['<h2 id="untuned">Baselines</h2>', _table(references(found))]
  for i, section in enumerate(sections):
    body += _section(section, i)
  template = string.Template(TEMPLATE.read_text('utf-8'))
  intro = _intro(found, bool(grouped), sections)
  return template.substitute(title=TITLE, intro=intro, body='\n'.join(filter(None, body)))


def _results(sections: Sequence[Section]) -> list[str]:
  """The headline of each task."""
  items = [
    f'<li><b>{_text(section.task)}</b>: {_text(headline)}</li>'
    for section in sections
    for headline in section.headlines
  ]
  return ['<h2 id="results">Results</h2>', '<ul class="results">', *items, '</ul>'] if items else []


def _intro(found: FoundRuns, grouped: bool, sections: Sequence[Section]) -> str:
  links = [('results', 'Results')] if any(section.headlines for section in sections) else []
  links += [('runs', 'Runs')]
  links += [('groups', 'Groups')] if grouped else []
  links += [('untuned', 'Baselines')] if found.references else []
  links += [(f'task-{i}', section.task) for i, section in enumerate(sections)]
  items = ''.join(f'<li><a href="#{to}">{_text(name)}</a></li>' for to, name in links)
  return f'{_said(counted(found))}\n<nav aria-label="Contents"><ul>{items}</ul></nav>'


def counted(found: FoundRuns) -> str:
  """The numbers of runs, unfinished runs, and unreadable folders and files."""
  n = len(found.runs)
  words = [f'{n} run{"" if n == 1 else "s"}']
  going = sum(run.status == UNFINISHED for run in found.runs)
  words += [f'{going} unfinished'] if going else []
  words += [f'{len(found.unreadable)} unreadable'] if found.unreadable else []
  return f'{", ".join(words)}. Scores are in percent, mean ± standard deviation over the seeds.'


def unreadable(found: Sequence[Unreadable]) -> list[str]:
  """What cannot be read, as a list; [] if there is nothing."""
  if not found:
    return []
  items = [f'<li><code>{_text(str(u.path))}</code>: {_text(u.why)}</li>' for u in found]
  return [f'<h3 class="warn">Could not be read: {len(found)}</h3>', '<ul>', *items, '</ul>']


def _section(section: Section, number: int) -> list[str]:
  body = [f'<h2 id="task-{number}">{_text(section.task)}</h2>']
  body.append(_pictures(section.pictures))
  for table in section.tables:
    body += [f'<h3>Scores by {_text(table.names[0])}</h3>', _table(table)]
  if section.answers:
    body += ['<h3>Answers</h3>', *(_answers(a) for a in section.answers)]
  return body


def _answers(answers: RunAnswers) -> str:
  parts = [
    f'<summary>{_text(answers.name)} <span class="soft">{_text(answers.said)}</span></summary>'
  ]
  parts.append(_pictures(answers.pictures))
  if answers.mistakes:
    parts += ['<p>Mistakes with the highest confidence:</p>', _mistakes(answers.mistakes)]
  return f'<details>{"".join(parts)}</details>'


def _mistakes(mistakes: Sequence[Answer]) -> str:
  several = any(m.task is not None for m in mistakes)
  heads = ['confidence', 'right answer', 'prediction', *(['task'] if several else []), 'input']
  rows = []
  for m in mistakes:
    confidence = m.confidence or 0.0
    cells = [_cell(f'{100 * confidence:.1f} %', 'number', str(confidence))]
    cells += [_cell(m.target, 'name'), _cell(m.prediction, 'name')]
    cells += [_cell(m.task or '-', 'name')] if several else []
    rows.append([*cells, _cell(_cut(m.input), 'text')])
  return _rows(heads, ['number', *[''] * (len(heads) - 1)], rows)


def _cut(words: str) -> str:
  return words if len(words) <= LONGEST else f'{words[:LONGEST]} …'


def _table(table: ReportTable) -> str:
  kinds = ['number' if text.numeric(table, name) else '' for name in table.names]
  rows = [[_value(n, row[n], k) for n, k in zip(table.names, kinds, strict=True)]
          for row in table.rows]  # fmt: skip
  return _rows([text.title(n) for n in table.names], kinds, rows)


def _value(name: str, value: Value, kind: str) -> str:
  key = value.mean if isinstance(value, MeanStd) else value
  number = '' if isinstance(key, str) or key is None or math.isnan(key) else repr(float(key))
  kinds = [kind, 'name' if name in WIDE else '', 'unfinished' if value == UNFINISHED else '']
  empty = value is None
  return _cell(text.shown(name, value), ' '.join(filter(None, kinds)), number, empty)


def _cell(words: str, kind: str = '', number: str = '', empty: bool = False) -> str:
  """One cell; `number` is what it sorts by."""
  attributes = f' class="{kind}"' if kind else ''
  attributes += f' data-value="{escape(number)}"' if number else ''
  shown = _text(words)
  if 'name' in kind:  # may be broken where a path or a name has joints
    shown = shown.replace('/', '/<wbr>').replace('_', '_<wbr>')
  return f'<td{attributes}{" data-empty" if empty else ""}>{shown}</td>'


def _rows(heads: Iterable[str], kinds: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
  top = ''.join(
    f'<th scope="col" class="{kind}"><button type="button">{_text(head)}</button></th>'
    for head, kind in zip(heads, kinds, strict=True)
  )
  lines = ''.join(f'<tr>{"".join(row)}</tr>\n' for row in rows)
  table = f'<table class="sortable"><thead><tr>{top}</tr></thead><tbody>\n{lines}</tbody></table>'
  # What scrolls must be reached by the keyboard.
  return f'<div class="wide" tabindex="0">{table}</div>'


def _pictures(pictures: Sequence[Picture]) -> str:
  """As many beside each other as there is room for."""
  return f'<div class="pictures">{"".join(map(_picture, pictures))}</div>' if pictures else ''


def _picture(picture: Picture) -> str:
  data = base64.b64encode(picture.png).decode('ascii')
  return (
    f'<figure><figcaption>{_text(picture.title)}</figcaption>'
    f'<img src="data:image/png;base64,{data}" alt="{_text(picture.alt)}" loading="lazy"></figure>'
  )


def _said(words: str) -> str:
  return f'<p class="soft">{_text(words)}</p>' if words else ''


def _text(words: str) -> str:
  """Text from anywhere, as HTML; what is no character of a page is written out."""
  return escape(''.join(c if c.isprintable() or c in '\n\t' else ascii(c)[1:-1] for c in words))
