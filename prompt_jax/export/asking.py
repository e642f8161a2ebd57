"""How software is asked: the ids of a source, what it writes, and its log-probabilities."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

BATCH = 32
Ids = list[int]


class Asked(NamedTuple):
  """What is asked: the name of a prompt, and the ids with which an engine asks it."""

  prompt: str
  ids: Ids


class Engine(Protocol):
  """Attributes:
  name: with its version.
  """

  name: str

  def source(self, prompt: Any, text: str) -> Ids:
    """The ids with which this engine asks a prompt."""
    ...

  def answers(self, prompts: Sequence[str], texts: Sequence[str]) -> list[str] | None:
    """What each prompt, by name, answers to its text; None where the engine takes only ids."""
    ...

  def greedy(self, sources: Sequence[Asked], length: int) -> list[Ids]:
    """The most probable token at each place, at most `length`, the end of the sequence included."""
    ...

  def log_probs(self, sources: Sequence[Asked], targets: Sequence[Ids]) -> list[np.ndarray]:
    """Of each token of a target, in nats, its source and the tokens before it given."""
    ...


def ended(ids: Ids, eos_id: int) -> Ids:
  """The ids up to the end of the sequence, if it is there."""
  return ids[: ids.index(eos_id) + 1] if eos_id in ids else ids


def padded(rows: Sequence[Ids], size: int | None = None) -> np.ndarray:
  """int32[len(rows), size] with 0 behind each row; None for the size of the longest."""
  out = np.zeros((len(rows), size or max(map(len, rows))), np.int32)
  for own, ids in zip(out, rows, strict=True):
    own[: len(ids)] = ids
  return out
