"""The programs of a step, compiled beside each other before the batches that need them come."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from prompt_jax.batch import Batch


@runtime_checkable
class Foreseen(Protocol):
  """A stream that knows the shapes of its next batches."""

  def upcoming_shapes(self, count: int) -> list[Batch]:
    """A batch of each shape among the next `count`, in the order in which they come."""
    ...


class Call(NamedTuple):
  """What a step is called with.

  Attributes:
    args: arrays.
    static: other arguments, by name.
  """

  args: tuple[Any, ...]
  static: dict[str, Any]


class Ahead:
  """A jitted step, of which every program is compiled in a thread of its own.

  A call whose shapes were foreseen waits for its program; any other is compiled when it comes. Use
  it as a context manager, which drops what was not begun.
  """

  def __init__(self, step: Any, calls: Sequence[Call] = ()):
    """Begins to compile for some calls, in their order; they are not made.

    They are traced here: settings of JAX that hold for a thread (`jax.default_matmul_precision`)
    would not reach another.
    """
    self._step = step
    self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix='compile')
    self._programs: dict[Any, Future] = {}
    for call in calls:
      lowered = step.lower(*call.args, **call.static)
      self._programs[_key(call)] = self._pool.submit(lowered.compile)

  def __enter__(self) -> 'Ahead':
    return self

  def __exit__(self, *_) -> None:
    self._pool.shutdown(wait=False, cancel_futures=True)

  def __call__(self, *args: Any, **static: Any) -> Any:
    program = self._programs.get(_key(Call(args, static)))
    return self._step(*args, **static) if program is None else program.result()(*args)


def _key(call: Call) -> Any:
  leaves, structure = jax.tree.flatten(call.args)
  return structure, tuple(map(np.shape, leaves)), tuple(sorted(call.static.items()))
