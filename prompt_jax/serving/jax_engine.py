"""The engine of JAX: prompts of any kind that can be stacked, in programs compiled beforehand."""

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from prompt_jax.data.example import encode
from prompt_jax.serving.batch import Programs, Shapes, bucket, fit
from prompt_jax.serving.rows import Found, Row, Served, Settings
from prompt_jax.serving.tuned_prompts import TunedPrompts

STEP = 4  # from one size of a batch or text to the next
SAMPLED = (False, True)


class JaxEngine:
  """An `Engine`, see there."""

  def __init__(self, prompts: TunedPrompts, batch_size: int, shapes: Shapes | None = None):
    """Begins without compiling.

    Args:
      prompts: that answer.
      batch_size: most rows of a batch.
      shapes: of batches; None for those that `prompts` need.
    """
    self._prompts, self._bank = prompts, prompts.bank
    prompts.programs = Programs(prompts.bank, shapes or shapes_of(prompts, batch_size))

  @property
  def base_model(self) -> str:
    return self._bank.backbone.name

  @property
  def names(self) -> tuple[str, ...]:
    return self._bank.names

  def __getitem__(self, name: str) -> Served:
    return self._bank[name]

  def tokens(self, text: str, prompt: Served) -> np.ndarray:
    return encode(text, self._bank.backbone.vocabulary, prompt.lengths.inputs)

  def words(self, tokens: np.ndarray) -> str:
    return self._bank.backbone.vocabulary.decode(tokens)

  def group(self, prompt: Served, tokens: np.ndarray) -> Hashable:
    entry: Any = prompt
    return id(entry.group), fit(len(tokens), self._prompts.programs.shapes.texts)

  def __call__(self, rows: Sequence[Row], settings: Settings) -> list[Found | None]:
    return self._prompts.programs(rows, settings)

  def programs(self) -> Iterator[Callable[[], object]]:
    for rows, settings in self._every_shape():
      yield functools.partial(self, rows, settings)

  def _every_shape(self) -> Iterator[tuple[list[Row], Settings]]:
    """A batch for each program."""
    shapes = self._prompts.programs.shapes
    kinds: dict[tuple[int, bool], str] = {}
    for name in self.names:
      entry = self._bank[name]
      kinds.setdefault((id(entry.group), bool(entry.labels)), name)
    for (_, labels), name in kinds.items():
      ways = [Settings('rank')] if labels else [Settings('generate', sampled=s) for s in SAMPLED]
      for settings in ways:
        for width in shapes.texts:
          for longest in [1] if labels else shapes.answers:
            tokens = np.full(width, 1, np.int32)
            for count in shapes.rows:
              yield [Row(name, tokens, longest)] * count, settings


def shapes_of(prompts: TunedPrompts, batch_size: int) -> Shapes:
  """Few sizes, so that all programs can be compiled before the first request."""
  entries = [prompts.bank[name] for name in prompts.names]
  most = [
    max((entry.label_tokens.shape[axis] for entry in entries if entry.labels), default=1)
    for axis in (0, 1)
  ]
  written = [entry.lengths.targets for entry in entries if not entry.labels]
  return Shapes(
    rows=sizes_to(batch_size, 1),
    texts=sizes_to(bucket(max(entry.lengths.inputs for entry in entries)), 32),
    answers=(bucket(max(written)),) if written else (),
    labels=(bucket(most[0], 2), bucket(most[1], 2)),
  )


def sizes_to(most: int, least: int) -> tuple[int, ...]:
  """least, 4 * least, ... below `most`, and `most` itself: sizes_to(16, 1) is (1, 4, 16)."""
  sizes = []
  while least < most:
    sizes.append(least)
    least *= STEP
  return (*sizes, most)
