"""A run's records as scalars for TensorBoard, by the library `tensorboard` (no TensorFlow)."""

import pathlib
import shutil
import time
from collections.abc import Iterable, Mapping
from typing import Any

from prompt_jax.errors import UserError

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
