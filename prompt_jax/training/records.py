"""The training history of a run: JSON lines, plots, TensorBoard's events; and means over seeds."""

import json
import math
import os
import pathlib
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes

FILE = 'events.out.tfevents.{seconds}.prompt_jax'  # TensorBoard looks for "tfevents" in names


def write_events(folder: pathlib.Path, records: Iterable[Mapping[str, Any]]) -> bool:
  """Writes records as one event file, instead of what the folder held.

  Args:
    folder: made for it.
    records: with their "step" (not negative) and "kind"; the other values, numbers, become scalars
      named "kind/name".

  Returns:
    Whether it was written: it is not where the library is absent.

  Raises:
    UserError: the file cannot be written.
  """
  try:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter
  except ImportError:
    return False
  now = time.time()
  shutil.rmtree(folder, ignore_errors=True)
  try:
    folder.mkdir(parents=True)
    with (folder / FILE.format(seconds=int(now))).open('wb') as file:
      writer = RecordWriter(file)
      writer.write(Event(wall_time=now, file_version='brain.Event:2').SerializeToString())
      for record in records:
        values = [
          Summary.Value(tag=f'{record["kind"]}/{name}', simple_value=value)
          for name, value in record.items()
          if name not in ('step', 'kind')
        ]
        event = Event(wall_time=now, step=record['step'], summary=Summary(value=values))
        writer.write(event.SerializeToString())
  except OSError as e:
    raise UserError(
      f'Cannot write TensorBoard events into {str(folder)!r}: {e.strerror}. Free some space, or '
      'give another folder.'
    ) from None
  return True


Record = dict[str, Any]
FEW = 10  # records that are drawn as points too


class Records:
  """Appends records to a JSONL file; each has "step" and "kind" ("train" or "eval").

  Of several processes the first one does.
  """

  def __init__(self, path: str | os.PathLike, step: int):
    """Keeps earlier records up to `step`, from where the run resumes; drops later ones."""
    self.path = pathlib.Path(path)
    if not processes.is_first():
      return
    kept = [r for r in read_records(self.path) if r['step'] <= step] if step else []
    text = ''.join(json.dumps(r) + '\n' for r in kept)
    write_atomically(self.path, text.encode())

  def add(self, step: int, kind: str, values: dict[str, Any]) -> None:
    """Appends one record.

    Raises:
      UserError: the file cannot be written.
    """
    if not processes.is_first():
      return
    try:
      with open(self.path, 'a', encoding='utf-8') as file:
        file.write(json.dumps({'step': step, 'kind': kind, **values}) + '\n')
    except OSError as e:
      raise UserError(
        f'Cannot write {self.path.name!r} into the folder {str(self.path.parent)!r}: '
        f'{e.strerror}. Free some space or give another folder.'
      ) from None


def read_records(path: str | os.PathLike) -> list[Record]:
  """The records of a file, none if there is no file; a line cut off by a kill is left out."""
  path = pathlib.Path(path)
  if not path.is_file():
    return []
  records = []
  for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
    try:
      record = json.loads(line)
    except json.JSONDecodeError:
      continue
    if isinstance(record, dict) and isinstance(record.get('step'), int):
      records.append(record)
  return records


def plot_curve(
  records: Sequence[Mapping[str, Any]],
  path: str | os.PathLike,
  metric: str | None = None,
  baselines: Mapping[str, float] | None = None,
) -> None:
  """Writes `curve_png` to a file."""
  write_atomically(path, curve_png(records, metric, baselines))


def curve_png(
  records: Sequence[Mapping[str, Any]],
  metric: str | None = None,
  baselines: Mapping[str, float] | None = None,
) -> bytes:
  """The training loss and, on a second axis, a validation metric by step, as a PNG.

  Args:
    records: see `Records`.
    metric: which value of the "eval" records; None draws the loss alone.
    baselines: name -> the metric of what needs no tuning, drawn as dashed lines.
  """
  import io

  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(7, 4), layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.add_subplot()
  train = [r for r in records if r['kind'] == 'train']
  marker = 'o' if len(train) < FEW else None  # one record alone is no line
  steps, losses = [r['step'] for r in train], [r['loss'] for r in train]
  axes.plot(steps, losses, color='C0', marker=marker, label='loss')
  axes.set_xlabel('step')
  axes.set_ylabel('training loss', color='C0')
  evaluated = [r for r in records if r['kind'] == 'eval' and metric in r]
  if metric is not None and evaluated:
    right = axes.twinx()
    values = [r[metric] for r in evaluated]
    right.plot([r['step'] for r in evaluated], values, 'o-', color='C1', label=metric)
    right.set_ylabel(f'validation {metric}', color='C1')
    for number, (name, value) in enumerate((baselines or {}).items(), 2):
      right.axhline(value, color=f'C{number}', linestyle='--', label=name)
    if baselines:
      figure.legend(fontsize='small', loc='outside upper center', ncols=4, frameon=False)
  data = io.BytesIO()
  figure.savefig(data, format='png', dpi=120)
  return data.getvalue()


class MeanStd(NamedTuple):
  """Mean, sample standard deviation (n - 1 in the denominator; NaN for one value), and n."""

  mean: float
  std: float
  n: int

  def __str__(self) -> str:
    return f'{self.mean:.4g}' if self.n == 1 else f'{self.mean:.4g} +- {self.std:.2g} (n={self.n})'


def summarize(results: Sequence[Mapping[str, float]]) -> dict[str, MeanStd]:
  """Mean and standard deviation of every metric.

  Args:
    results: one mapping a seed; all have the same names.

  Raises:
    ValueError: there are none, or their names differ.
  """
  if not results:
    raise ValueError('No results to summarise')
  names = set(results[0])
  for i, result in enumerate(results):
    if set(result) != names:
      differ = ', '.join(sorted(names ^ set(result)))
      raise ValueError(f'Result {i} does not have the metrics of result 0; they differ in {differ}')
  return {name: mean_std([float(r[name]) for r in results]) for name in results[0]}


def mean_std(values: Sequence[float]) -> MeanStd:
  """Mean and sample standard deviation of some values."""
  n = len(values)
  mean = math.fsum(values) / n
  if n == 1:
    return MeanStd(mean, math.nan, 1)
  return MeanStd(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1)), n)
