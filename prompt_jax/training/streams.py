"""The batches of several members, one of each at every step."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax.batch import Batch
from prompt_jax.training.ahead import Foreseen
from prompt_jax.training.prefetch import Position, Stream


class Streams:
  """Several streams as one, whose batches are tuples. A `prefetch.Stream` but for that."""

  def __init__(self, streams: Mapping[str, Stream]):
    self._streams = streams

  @property
  def position(self) -> Position:
    return {name: dict(stream.position) for name, stream in self._streams.items()}

  def restore(self, position: Position) -> None:
    for name, stream in self._streams.items():
      stream.restore(position[name])

  def upcoming_shapes(self, count: int) -> list[tuple[Batch, ...]]:
    """Batches of the shapes among the next `count`; none where the streams do not all know them,
    or differ in them."""
    streams = self._streams.values()
    known = [s.upcoming_shapes(count) for s in streams if isinstance(s, Foreseen)]
    shapes = {tuple(tuple(map(np.shape, jax.tree.leaves(b))) for b in of) for of in known}
    return list(zip(*known, strict=True)) if len(known) == len(streams) and len(shapes) == 1 else []

  def __iter__(self) -> Iterator[tuple[Batch, ...]]:
    for batches in zip(*self._streams.values(), strict=False):  # until one of them ends
      yield widened(batches)


def widened(batches: Sequence[Batch]) -> tuple[Batch, ...]:
  """Batches of NumPy arrays padded to the longest inputs and the longest targets among them.

  Streams of one task give batches of one width at every step, whatever their seeds, so that this
  pads between tasks only. It changes no loss but a normalisation by "all_tokens".
  """
  widths = {
    'encoder': max(b.encoder_input_tokens.shape[1] for b in batches),
    'decoder': max(b.decoder_target_tokens.shape[1] for b in batches),
  }
  return tuple(_padded(batch, widths) for batch in batches)


def _padded(batch: Batch, widths: Mapping[str, int]) -> Batch:
  def pad(name: str, value: Any) -> Any:
    stack = 'encoder' if name == 'prompt_slot' else name.split('_')[0]
    if value is None or stack not in widths or value.shape[1] == widths[stack]:
      return value
    more = widths[stack] - value.shape[1]
    fill = -1 if name == 'prompt_slot' else 0
    return np.pad(value, ((0, 0), (0, more)), constant_values=fill)

  return Batch(**{name: pad(name, value) for name, value in vars(batch).items()})
