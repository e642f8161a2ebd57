"""Plots of runs, as PNG with a text description."""

import dataclasses
import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from rich.cells import cell_len, set_cell_size

from prompt_jax.reports import columns, parts, text
from prompt_jax.reports.answers import OTHER, Confusion
from prompt_jax.reports.runs import Reference, Run
from prompt_jax.training.records import mean_std

AT_ONCE = 10  # runs in one picture: as many as there are colours to tell apart
GREY = '#9a9a9a'
LONGEST = 44  # letters of a name, of wide ones half as many
FEW = 10  # points of a line that are marked one by one


@dataclasses.dataclass(frozen=True)
class Picture:
  """A PNG.

  Attributes:
    stem: its file's name without the ending.
    title: its heading.
    alt: what it shows, in words.
    png: its bytes.
  """

  stem: str
  title: str
  alt: str
  png: bytes


def curves(runs: Sequence[Run], task: str) -> list[Picture]:
  """Training loss and each validation score over the steps; ten runs per plot."""
  runs = [run for run in runs if any(c.records for c in run.histories)]
  pictures = []
  for first in range(0, len(runs), AT_ONCE):
    some = runs[first : first + AT_ONCE]
    more = f' {first // AT_ONCE + 1}' if len(runs) > AT_ONCE else ''
    pictures.append(_curve(some, 'train', 'loss', 'training loss', f'{task}{more}'))
    for metric in dict.fromkeys(run.metric for run in some if run.metric):
      mine = [run for run in some if run.metric == metric]
      pictures.append(_curve(mine, 'eval', metric, f'validation {metric}', f'{task}{more}'))
  return pictures


def _curve(runs: Sequence[Run], kind: str, name: str, what: str, task: str) -> Picture:
  from matplotlib.ticker import MaxNLocator

  figure, axes = _figure(7, 4)
  for i, run in enumerate(runs):
    _lines(axes, run, kind, name, f'C{i}')
  said = _baselines(axes, runs) if kind == 'eval' else []
  axes.set(xlabel='step', ylabel=_name(what), xlim=(0, None))
  axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
  _legend(figure, axes)
  title = f'{what[0].upper()}{what[1:]} over the steps, {task}'
  alt = f'{title}: ' + '; '.join([*(f'{run.name} {_history_words(run)}' for run in runs), *said])
  return Picture(_stem(what, task), title, alt, _png(figure))


def _baselines(axes: Any, runs: Sequence[Run]) -> list[str]:
  """A dashed line for each baseline of the runs; more where their examples differ. In words."""
  names = list(dict.fromkeys(name for run in runs for name in run.on_validation))
  found = [sorted({r.on_validation[n] for r in runs if n in r.on_validation}) for n in names]
  for style, name, values in zip(['--', ':', '-.'], names, found, strict=False):
    for i, value in enumerate(values):
      axes.axhline(value, color=GREY, linestyle=style, zorder=0, label='' if i else _name(name))
  said = [', '.join(f'{value:.1f}' for value in values) for values in found]
  return [f'{name} {words}' for name, words in zip(names, said, strict=True)]


def _history_words(run: Run) -> str:
  best = f', best {run.metric} {text.shown("", mean_std(run.best))}' if run.best else ''
  return f'{run.steps} steps{best}'


def _lines(axes: Any, run: Run, kind: str, name: str, colour: str) -> None:
  """A thin line per seed; with several seeds a thick line for the mean where all have a value."""
  seeds = [{r['step']: r[name] for r in c.of(kind) if name in r} for c in run.histories]
  seeds = [found for found in seeds if found]
  if not seeds:
    return
  if len(seeds) > 1:
    for found in seeds:
      axes.plot(found.keys(), found.values(), color=colour, alpha=0.3, linewidth=0.8)
  steps = [s for s in seeds[0] if all(s in found for found in seeds)]
  mark = 'o' if kind == 'eval' or len(steps) < FEW else None
  means = [sum(found[s] for found in seeds) / len(seeds) for s in steps]
  axes.plot(steps, means, color=colour, label=_name(run.name), marker=mark, markersize=3)


def by(
  runs: Sequence[Run],
  references: Sequence[Reference],
  task: str,
  split: str | None,
  names: Sequence[str],
) -> Picture | None:
  """Bars of the score for each value of some columns, below those of the baselines.

  Args:
    runs: of one task and split.
    references: of the same.
    task: its name.
    split: that the scores are of.
    names: of the columns whose values are compared.

  Returns:
    None if there is nothing to compare.
  """
  scores = [run.score for run in runs if run.score]
  if not scores:
    return None
  metric, _ = scores[0]
  values: dict[str, list[float]] = {}
  measured = [run for run in runs if metric in run.metrics]
  measured.sort(key=lambda run: [columns.order(columns.value(run, n)) for n in names])
  for run in measured:
    title = ', '.join(text.shown(n, columns.value(run, n)) for n in names)
    found = [s[metric] for s in run.scores if metric in s]
    values.setdefault(title, []).extend(found)
  models = {r.model for r in references if r.model}
  plain = {
    f'{r.system} ({r.model})' if r.model and len(models) > 1 else r.system: dict(r.scores)[metric]
    for r in references
    if metric in dict(r.scores)
  }
  if len(values) + len(plain) < 2:
    return None
  figure, axes = _figure(7, 1.1 + 0.34 * (len(values) + len(plain)))
  for i, value in enumerate(plain.values()):
    axes.barh(i, value, color=GREY, height=0.7)
  for i, found in enumerate(values.values(), len(plain)):
    axes.barh(i, mean_std(found).mean, color='C0', height=0.7, alpha=0.85)
    if len(found) > 1:
      axes.plot(found, [i] * len(found), 'o', color='black', markersize=3, alpha=0.6)
  said = [(n, text.shown(metric, mean_std([v]))) for n, v in plain.items()]
  said += [(n, text.shown(metric, mean_std(v))) for n, v in values.items()]
  axes.set_yticks(range(len(said)), [_name(f'{n}   {v}') for n, v in said])
  axes.invert_yaxis()
  axes.set(xlabel=_name(metric), xlim=_from_zero(axes))
  what = ', '.join(map(text.title, names))
  title = f'{metric} by {what}, {task}, {split}'
  alt = f'{title}: ' + ', '.join(f'{name} {value}' for name, value in said)
  return Picture(_stem(f'by {what}', f'{task}-{split}'), title, alt, _png(figure))


def _from_zero(axes: Any) -> tuple[float, float]:
  low, high = axes.get_xlim()
  return min(0.0, low), max(1.0, high)


def by_size(runs: Sequence[Run], task: str, split: str | None) -> list[Picture]:
  """The score over the number of trainable parameters and over model size, where these differ."""
  sizes: dict[str, Callable[[Run], int | None]] = {
    'trainable parameters': lambda run: run.trained,
    'model parameters': lambda run: run.parameters,
  }
  pictures = []
  for what, size in sizes.items():
    known = [run for run in runs if run.score and size(run)]
    if len({size(run) for run in known}) > 1:
      pictures.append(_by_size(known, size, what, f'{task}, {split}'))
  return pictures


def _by_size(runs: Sequence[Run], size: Callable[[Run], int | None], what: str, of: str) -> Picture:
  metric = runs[0].score[0] if runs[0].score else ''
  figure, axes = _figure(7, 4)
  said = []
  for i, method in enumerate(dict.fromkeys(run.method or '-' for run in runs)):
    points = sorted(
      (size(run) or 0, run.metrics[metric])
      for run in runs
      if (run.method or '-') == method and metric in run.metrics
    )
    x, y = [n for n, _ in points], [score for _, score in points]
    bars = [score.std if score.n > 1 else 0.0 for score in y]
    axes.errorbar(
      x, [score.mean for score in y], bars, fmt='o-', capsize=3, linewidth=1, label=_name(method),
      color=f'C{i % AT_ONCE}',
    )  # fmt: skip
    said += [f'{method} {n:,}: {text.shown(metric, score)}' for n, score in points]
  axes.set(xscale='log', xlabel=what, ylabel=_name(metric))
  _legend(figure, axes)
  title = f'{metric} by {what}, {of}'
  return Picture(_stem(f'by {what}', of), title, f'{title}: {"; ".join(said)}', _png(figure))


def by_part(runs: Sequence[Run]) -> list[Picture]:
  """Dots for the score of each run on each task or language, best first; ten runs per plot."""
  chunks = [runs[i : i + AT_ONCE] for i in range(0, len(runs), AT_ONCE)]
  return [_by_part(some, f' {i}' if len(chunks) > 1 else '') for i, some in enumerate(chunks, 1)]


def _by_part(runs: Sequence[Run], more: str) -> Picture:
  each = [{part.name: part.score for part in parts.parts(run)} for run in runs]
  tasks = list(dict.fromkeys(name for found in each for name in found))
  mean = lambda task: sum(f[task].mean for f in each if task in f) / sum(task in f for f in each)
  tasks.sort(key=mean, reverse=True)
  figure, axes = _figure(7, 1.3 + 0.24 * len(tasks) + 0.2 * len(runs))
  for i, (run, found) in enumerate(zip(runs, each, strict=True)):
    at = [(k, found[task]) for k, task in enumerate(tasks) if task in found]
    values, places = [v.mean for _, v in at], [k for k, _ in at]
    bars = [v.std if v.n > 1 else 0.0 for _, v in at]
    axes.errorbar(
      values, places, xerr=bars, fmt='o', color=f'C{i}', label=_name(run.name), markersize=5,
      linewidth=1,
    )  # fmt: skip
  shown = parts.titles(tasks, runs[0].source)
  axes.set_yticks(range(len(tasks)), [_name(n) for n in shown])
  axes.set_ylim(len(tasks) - 0.5, -0.5)
  axes.grid(axis='y', alpha=0.3)
  metric, kind = parts.parts(runs[0])[0].metric, parts.kind(tasks)
  axes.set(xlabel=_name(metric))
  _legend(figure, axes)
  said = [f'{name} ' + ' and '.join(text.shown('', f[task]) for f in each if task in f)
          for name, task in zip(shown, tasks, strict=True)]  # fmt: skip
  title = f'{metric} by {kind}, {runs[0].task}, {runs[0].split}{more}'
  stem = _stem(f'by_{kind.split()[0]}', f'{runs[0].task}-{runs[0].split}{more}')
  return Picture(stem, title, f'{title}: {", ".join(said)}', _png(figure))


def confusion(found: Confusion, run: Run) -> Picture:
  """Correct answers in rows, predictions in columns; darker: a larger share of the row."""
  import numpy as np

  counts = np.array(found.counts)
  columns_ = [*found.labels, OTHER][: counts.shape[1]]
  share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  side = 1.6 + 0.48 * len(columns_)
  figure, axes = _figure(side + 1.2, side)
  axes.imshow(share, cmap='Blues', vmin=0, vmax=1)
  for (i, j), n in np.ndenumerate(counts):
    if n:
      dark = share[i, j] > 0.55
      axes.text(j, i, f'{n}', ha='center', va='center', color='white' if dark else 'black',
                fontsize=8)  # fmt: skip
  axes.set_xticks(range(len(columns_)), [_name(c, 18) for c in columns_], rotation=45, ha='right')
  axes.set_yticks(range(len(found.labels)), [_name(label, 18) for label in found.labels])
  axes.set(xlabel='prediction', ylabel='correct answer')
  axes.set_xticks(np.arange(counts.shape[1] - 1) + 0.5, minor=True)
  axes.set_yticks(np.arange(counts.shape[0] - 1) + 0.5, minor=True)
  axes.grid(which='minor', color='white', linewidth=1.5)
  axes.tick_params(which='minor', length=0)
  whose = f'{run.name} ({", ".join(found.tasks)})' if found.tasks else run.name
  right, total = int(np.trace(counts)), int(counts.sum())
  wrong = counts.copy()
  np.fill_diagonal(wrong, 0)
  alt = f'Correct answers and predictions of {whose}: {right} of {total} agree'
  if wrong.any():
    i, j = np.unravel_index(np.argmax(wrong), wrong.shape)
    alt += f'; most frequent error: {columns_[j]} instead of {found.labels[i]} ({wrong[i, j]})'
  return Picture(_stem('confusion', whose), f'Confusion, {whose}', alt, _png(figure))


def _figure(width: float, height: float) -> tuple[Any, Any]:
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.add_subplot()
  axes.spines[['top', 'right']].set_visible(False)
  return figure, axes


def _legend(figure: Any, axes: Any) -> None:
  handles, names = axes.get_legend_handles_labels()
  if handles:
    figure.legend(
      handles, names, loc='outside lower center', ncols=min(2, len(names)), fontsize='small',
      frameon=False,
    )  # fmt: skip


def _name(words: str, most: int = LONGEST) -> str:
  """Text for a plot: shortened, and escaped (matplotlib interprets $ and a leading _)."""
  words = text.printable(words)
  if cell_len(words) > most:
    head, tail = set_cell_size(words, most // 2 - 1), set_cell_size(words[::-1], most // 2)[::-1]
    words = f'{head.rstrip()}…{tail.lstrip()}'
  words = words.replace('$', r'\$')
  return f' {words}' if words.startswith('_') else words


def _stem(kind: str, name: str) -> str:
  """A file name that is valid on every system."""
  return re.sub(r'[^\w.+-]+', '_', f'{kind}-{name}', flags=re.ASCII)[:100]


def _png(figure: Any) -> bytes:
  data = io.BytesIO()
  with warnings.catch_warnings():
    # Scripts that the font lacks are drawn as boxes; the text beside the picture has them.
    warnings.filterwarnings('ignore', r'Glyph \d+ .* missing', UserWarning)
    figure.savefig(data, format='png', dpi=110)
  return data.getvalue()
