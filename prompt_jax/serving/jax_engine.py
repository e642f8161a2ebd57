"""The engine of JAX: prompts of any kind that can be stacked, in programs compiled beforehand."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax import loading
from prompt_jax.data.example import encode
from prompt_jax.serving.bank import Entry
from prompt_jax.serving.batch import Programs, Shapes, bucket, fit
from prompt_jax.serving.rows import STREAMED, Found, Row, Served, Settings, Tell
from prompt_jax.serving.stacked import Injections
from prompt_jax.serving.tuned_prompts import TunedPrompts

# From one size to the next, of a batch and of a text: what is filled up is computed too.
ROWS_STEP, TEXTS_STEP = 2, 4
SHORTEST = 32  # the first size of a text


class JaxEngine:
  """An `Engine`, see there."""

  def __init__(self, prompts: TunedPrompts, batch_size: int, beams: int = 1):
    """Begins without compiling.

    Args:
      prompts: that answer; none may be added or removed but by this.
      batch_size: most rows of a batch.
      beams: a width of a beam search that requests may ask for; 1 for none.
    """
    self.beams = (beams,) if beams > 1 else ()
    self._prompts, self._bank = prompts, prompts.bank
    prompts.programs = Programs(prompts.bank, Shapes(rows=sizes_to(batch_size, 1, ROWS_STEP)))
    self._compiled: set[Hashable] = set()
    for entry in self._bank.entries:
      self._programs.shapes = _with(self._programs.shapes, entry)

  @property
  def _programs(self) -> Programs:
    return self._prompts.programs

  @property
  def base_model(self) -> str:
    return self._bank.backbone.name

  @property
  def names(self) -> tuple[str, ...]:
    return self._bank.names

  @property
  def prompts(self) -> Sequence[Served]:
    return self._bank.entries

  def __getitem__(self, name: str) -> Served:
    return self._bank[name]

  def tokens(self, text: str, prompt: Served) -> np.ndarray:
    return encode(text, self._bank.backbone.vocabulary, prompt.lengths.inputs)

  def words(self, tokens: np.ndarray) -> str:
    return self._bank.backbone.vocabulary.decode(tokens)

  def group(self, prompt: Served, tokens: np.ndarray) -> Hashable:
    entry: Any = prompt
    return id(entry.group), fit(len(tokens), self._programs.shapes.texts)

  def __call__(
    self, rows: Sequence[Row], settings: Settings, tell: Tell | None = None
  ) -> list[Found | None]:
    return self._programs(
      rows, settings, tell, lambda e: bool(e.labels) == (settings.way == 'rank')
    )

  def programs(self) -> Iterator[Callable[[], object]]:
    for entry in self._bank.entries:
      yield from self._programs_of(entry, entry.group.stack, self._programs)

  def add(self, name: str, file: str) -> None:
    """Programs that the prompt needs are compiled before it is there."""

    def prepare(entry: Entry, stack: Injections) -> Callable[[], None]:
      shapes = _with(self._programs.shapes, entry)
      for program in self._programs_of(entry, stack, self._programs.with_shapes(shapes)):
        program()
      return lambda: setattr(self._programs, 'shapes', shapes)

    self._bank.add(name, loading.attach(self._bank.backbone, file), prepare)

  def remove(self, name: str) -> None:
    self._bank.remove(name)

  def _written(self) -> list[Settings]:
    """The ways in which text can be asked for."""
    whole = [Settings('generate', sampled=sampled) for sampled in (False, True)]
    return [*whole, STREAMED, *(Settings('generate', beams=n) for n in self.beams)]

  def _programs_of(
    self, entry: Entry, stack: Injections, programs: Programs
  ) -> Iterator[Callable[[], object]]:
    """Those that answer with a prompt or its neighbours and that are not compiled yet."""
    shapes = programs.shapes
    alike = [entry, *(e for e in self._bank.entries if e.group is entry.group)]
    sizes = list(itertools.product(shapes.texts, shapes.rows))
    for one in {bool(e.labels): e for e in alike}.values():
      ways = [(Settings('rank'), 1)]
      if not one.labels:
        ways = [(settings, n) for settings in self._written() for n in shapes.answers]
      for (settings, longest), (width, count) in itertools.product(ways, sizes):
        row = Row(one.name, np.full(width, 1, np.int32), longest)
        key = (_signature(stack), settings, width, longest, count, shapes.labels.get(one.group))
        if key not in self._compiled:
          self._compiled.add(key)
          call = functools.partial(programs.of_group, stack)
          yield functools.partial(call, [one] * count, [row] * count, settings)


def _signature(stack: Injections) -> Hashable:
  """Equal for stacks that one program takes."""
  leaves, tree = jax.tree.flatten(stack)
  return tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves)


def _with(shapes: Shapes, entry: Entry) -> Shapes:
  """Few sizes, so that all programs can be compiled before the first request: also for a prompt."""
  sizes = sizes_to(bucket(entry.lengths.inputs), SHORTEST, TEXTS_STEP)
  texts = (*shapes.texts, *(n for n in sizes if n > max(shapes.texts, default=0)))
  answers, labels = shapes.answers, dict(shapes.labels)
  if entry.labels:
    labels[entry.group] = _most(labels.get(entry.group, (2, 2)), entry.label_tokens.shape)
  elif bucket(entry.lengths.targets) > max(answers, default=0):
    answers = (*answers, bucket(entry.lengths.targets))
  return dataclasses.replace(shapes, texts=texts, answers=answers, labels=labels)


def _most(known: tuple[int, int], shape: Sequence[int]) -> tuple[int, int]:
  count, length = (max(k, bucket(n, 2)) for k, n in zip(known, shape, strict=True))
  return count, length


def sizes_to(most: int, least: int, step: int) -> tuple[int, ...]:
  """least, step * least, ... below `most`, then `most`: sizes_to(24, 1, 4) is (1, 4, 16, 24)."""
  sizes = []
  while least < most:
    sizes.append(least)
    least *= step
  return (*sizes, most)
