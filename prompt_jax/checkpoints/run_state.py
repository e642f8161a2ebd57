"""The state of a run on disk: what training needs to go on as if it had never stopped.

Only what changes is kept (trainable leaves, optimizer, constants, step, key) with a small JSON
record (data position, fingerprint, selection); the frozen backbone never is. Orbax writes it in
the background, into a temporary folder that is renamed when it is complete. The record holds a
checksum of all values, and a complete state gets those of its files. All of it is whole in every
process of a run, so the first one writes it, and tells the others when it is read.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from prompt_jax.checkpoints import on_disk
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes

Arrays = dict[str, np.ndarray]
# Bytes that a state needs beside its arrays.
SMALL_FILES = 2**16


class RunStates:
  """The saved states below one folder: the latest few, and the best one by a metric.

  Use it as a context manager; leaving it waits for the last save. While it is open, Orbax's own
  log of a failure is dropped: the failure is raised as a `UserError` with the folder's name.
  """

  def __init__(self, folder: str | os.PathLike, keep: int = 1, best: str = 'max'):
    """Opens the folder, creates it if need be, and removes what a killed run left half-written.

    Args:
      folder: of this run alone.
      keep: how many of the latest states to keep, at least 1.
      best: "max" or "min", which metric is best; that state is kept too.

    Raises:
      UserError: the folder cannot be made or written.
    """
    if keep < 1 or best not in ('max', 'min'):
      raise ValueError(f'keep is {keep} (expected >= 1), best is {best!r} (expected max or min)')
    self.folder = pathlib.Path(folder).absolute()
    policy = checkpoint_managers.AnyPreservationPolicy(
      [
        checkpoint_managers.LatestN(keep),
        checkpoint_managers.BestN(
          n=1,
          get_metric_fn=lambda metrics: metrics['value'],
          reverse=best == 'min',
          keep_checkpoints_without_metrics=False,
        ),
      ]
    )
    logging.getLogger('absl').addFilter(_not_from_orbax)
    self._manager: ocp.CheckpointManager | None = None  # of the first process
    processes.broadcast(lambda: self._open(policy))

  def _open(self, policy: checkpoint_managers.PreservationPolicy) -> None:
    alone = ocp.options.MultiprocessingOptions()
    if processes.count() > 1:
      alone = ocp.options.MultiprocessingOptions(
        primary_host=0, active_processes={0}, barrier_sync_key_prefix='run_state'
      )
    with self._told():
      self.folder.mkdir(parents=True, exist_ok=True)
    # The one that is restored. Of older ones a kill may have left a part, while they were removed.
    for last in _complete(self.folder)[-1:]:
      if damage := on_disk.damaged(last):
        raise _damaged(last, damage)
    with self._told():
      self._manager = ocp.CheckpointManager(
        self.folder,
        options=ocp.CheckpointManagerOptions(
          preservation_policy=policy,
          cleanup_tmp_directories=True,
          create=False,
          multiprocessing_options=alone,
        ),
      )

  def __enter__(self) -> 'RunStates':
    return self

  def __exit__(self, kind, error, trace) -> None:
    try:
      if error is None:
        self.wait()
      if self._manager is not None:
        # The first error is the one to tell; a save that failed as well must not hide it.
        hidden = contextlib.nullcontext() if error is None else contextlib.suppress(Exception)
        with hidden:
          self._manager.close()
    finally:
      logging.getLogger('absl').removeFilter(_not_from_orbax)

  def steps(self) -> list[int]:
    """Steps of the complete states, ascending."""
    return processes.broadcast(lambda: sorted(self._first.all_steps()))

  def save(self, step: int, arrays: Arrays, info: dict[str, Any], metric: float | None) -> None:
    """Begins to save; returns before the bytes are on disk.

    Args:
      step: number of steps done.
      arrays: host copies that nobody changes any more.
      info: JSON values.
      metric: of these weights on the validation data; None if they were not evaluated.

    Raises:
      UserError: this save or the one before failed. Complete states are still there.
    """
    if self._manager is None:
      return
    info = json.loads(json.dumps(info))  # as it is now: it is written in the background
    value = None if metric is None or not math.isfinite(metric) else {'value': float(metric)}
    with self._told():
      self._seal()
      _check_space(self.folder, sum(a.nbytes for a in arrays.values()))
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(arrays), info=ocp.args.JsonSave(_checked(arrays, info))
        ),
        metrics=value,
        force=True,
      )

  def wait(self) -> None:
    """Waits until everything saved is on disk.

    Raises:
      UserError: a save failed. Earlier complete states are still there.
    """
    if self._manager is None:
      return
    with self._told():
      self._seal()

  def _seal(self) -> None:
    """Waits for the last save, and keeps the checksums of its files."""
    self._first.wait_until_finished()
    self._first.check_for_errors()
    for folder in _complete(self.folder)[-1:]:
      if not (folder / on_disk.NAME).exists():
        on_disk.seal(folder, [p for p in folder.rglob('*') if p.is_file()])

  def restore(self, step: int) -> tuple[Arrays, dict[str, Any]]:
    """Reads (arrays, info) of one of `steps()`.

    Raises:
      UserError: the state is damaged.
    """
    return processes.broadcast(lambda: self._read(step))

  def _read(self, step: int) -> tuple[Arrays, dict[str, Any]]:
    try:
      restored = self._first.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(), info=ocp.args.JsonRestore()),
      )
    except Exception as e:
      raise _damaged(self.folder / str(step), f'{type(e).__name__}.') from e
    arrays, info = restored['state'], restored['info']
    if not {'checked', 'sha256'} & info.keys():
      return arrays, info  # of before there were checksums
    if info.get('sha256') != _digest(arrays, info.get('checked')):
      raise _damaged(self.folder / str(step), 'its values do not have their checksum.')
    return arrays, info['checked']

  @property
  def _first(self) -> ocp.CheckpointManager:
    assert self._manager is not None
    return self._manager

  @contextlib.contextmanager
  def _told(self) -> Iterator[None]:
    """Tells any failure to write with the folder's name.

    Tensorstore raises ValueError, Orbax several types of its own, and all of them may stand for
    a full disk, so this catches whatever they raise.
    """
    try:
      yield
    except Exception as e:
      left = ', '.join(p.name for p in _complete(self.folder)) or 'none'
      raise UserError(
        f'Cannot write the run state into the folder {str(self.folder)!r}: {_reason(e)}. '
        f'States that are safe there: {left}. Free some space or give another folder.'
      ) from e


def _check_space(folder: pathlib.Path, size: int) -> None:
  """Raises OSError unless a file of `size` bytes and a little more can be written.

  Finding out here costs a write that never reaches the disk, and leaves no half-written state.
  """
  with tempfile.TemporaryFile(dir=folder) as file:
    chunk = bytes(2**20)
    for start in range(0, size + SMALL_FILES, len(chunk)):
      file.write(chunk[: size + SMALL_FILES - start])


def _not_from_orbax(record: logging.LogRecord) -> bool:
  return 'orbax' not in record.pathname


def _complete(folder: pathlib.Path) -> list[pathlib.Path]:
  """The folders of complete states, the latest last."""
  try:
    return sorted((p for p in folder.iterdir() if p.name.isdigit()), key=lambda p: int(p.name))
  except OSError:
    return []


def _damaged(folder: pathlib.Path, how: str) -> UserError:
  return UserError(
    f'The run state {str(folder)!r} is damaged: {how} Copy it again, remove that folder to go on '
    'from an earlier state if there is one, or begin in another output folder.'
  )


def _checked(arrays: Arrays, info: dict[str, Any]) -> dict[str, Any]:
  """The record with a checksum of everything."""
  return {'checked': info, 'sha256': _digest(arrays, info)}


def _digest(arrays: Arrays, info: Any) -> str:
  """Of names, dtypes, shapes and values, and of the record."""
  digest = hashlib.sha256(json.dumps(info, sort_keys=True).encode())
  for name in sorted(arrays):
    array = np.asarray(arrays[name])
    digest.update(f'{name} {array.dtype.name} {array.shape}'.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()


def _reason(error: BaseException) -> str:
  """What the operating system said, else the first line of the error's message."""
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, OSError) and cause.strerror:
      return cause.strerror
    cause = cause.__cause__ or cause.__context__
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def to_arrays(tree: Any) -> Arrays:
  """{"opt_state/0/v/prompt": host copy} of any pytree.

  Always copies: on CPU a NumPy view of a JAX array shares its memory, which the next step reuses.
  """
  host = jax.device_get(tree)
  leaves = jax.tree_util.tree_leaves_with_path(host)
  return {_name(path): np.array(leaf, copy=True) for path, leaf in leaves}


def from_arrays(template: Any, arrays: Arrays, where: str) -> Any:
  """The pytree shaped like `template`, with leaves of `arrays`.

  Args:
    template: pytree of anything with `shape` and `dtype`.
    arrays: what `to_arrays` gave.
    where: the folder, for the message.

  Raises:
    UserError: names, shapes or dtypes differ; both sides are listed.
  """
  leaves = jax.tree_util.tree_leaves_with_path(template)
  want = {_name(path): (tuple(leaf.shape), np.dtype(leaf.dtype).name) for path, leaf in leaves}
  have = {name: (tuple(a.shape), a.dtype.name) for name, a in arrays.items()}
  if want != have:
    lines = [
      f'  {name}: saved {_show(have.get(name))}, this run {_show(want.get(name))}'
      for name in sorted(want.keys() | have.keys())
      if want.get(name) != have.get(name)
    ]
    raise UserError(
      f'The run state in {where!r} belongs to another set-up:\n' + '\n'.join(lines) + '\n'
      'Give the settings it was made with, or another output folder.'
    )
  return jax.tree.unflatten(jax.tree.structure(template), [arrays[_name(p)] for p, _ in leaves])


def _name(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _show(leaf: tuple[tuple[int, ...], str] | None) -> str:
  return 'nothing' if leaf is None else f'{leaf[1]}{list(leaf[0])}'
