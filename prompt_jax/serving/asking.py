"""Texts of a request on their way to the queue and back, whatever the form of the request."""

import asyncio
import dataclasses
import secrets
from collections.abc import Sequence

from prompt_jax.errors import UserError
from prompt_jax.serving.engine import Engine
from prompt_jax.serving.queue import Full, Queue
from prompt_jax.serving.refused import Refused, no_prompt
from prompt_jax.serving.rows import Found, Row, Served, Settings


@dataclasses.dataclass(frozen=True)
class Limits:
  """What a server takes on.

  Attributes:
    rows: of a batch.
    waiting: rows that wait; more are refused.
    seconds: that a request may take.
    bytes: of a request's body.
    tokens: most tokens of an answer.
  """

  rows: int = 16
  waiting: int = 256
  seconds: float = 30.0
  bytes: int = 1 << 20
  tokens: int = 64


@dataclasses.dataclass(frozen=True)
class Asked:
  """What a request asks.

  Attributes:
    prompt: the name of the prompt ("model").
    texts: what it is to answer ("prompt"); a single text is a list of one.
    max_tokens: None for as many as the prompt was trained with.
    temperature: 0 is greedy.
    top_p: 1 for all tokens.
    seed: None for a new one.
    n: answers to each text.
    logprobs: whether log-probabilities are asked for.
  """

  prompt: str
  texts: tuple[str, ...]
  max_tokens: int | None = None
  temperature: float = 0.0
  top_p: float = 1.0
  seed: int | None = None
  n: int = 1
  logprobs: bool = False


@dataclasses.dataclass(frozen=True)
class Answered:
  """What was found.

  Attributes:
    found: the answers, `n` of each text.
    texts: them in words.
    read: tokens of the inputs.
    wrote: tokens of all answers that were computed.
  """

  found: Sequence[Found]
  texts: Sequence[str]
  read: int
  wrote: int


class Desk:
  """Where requests are turned into rows that wait for an engine."""

  def __init__(self, engine: Engine, queue: Queue, limits: Limits):
    self._engine, self._queue, self._limits = engine, queue, limits

  def prompt(self, name: str) -> Served:
    """The prompt of that name.

    Raises:
      Refused: there is none.
    """
    try:
      return self._engine[name]
    except UserError:
      raise no_prompt(name) from None

  async def answer(self, asked: Asked) -> Answered:
    """The answers to a request.

    Raises:
      Refused: the prompt is not there, there is no room, or it takes too long.
    """
    prompt = self.prompt(asked.prompt)
    rows, read = self._rows(asked, prompt)
    waiting = self._put(rows, _settings(asked, prompt), prompt)
    try:
      async with asyncio.timeout(self._limits.seconds):
        found = await asyncio.gather(*waiting)
    except TimeoutError:
      raise self.late() from None
    finally:
      for each in waiting:
        each.cancel()
    there = [one for one in found if one is not None]
    if len(there) < len(found):
      raise no_prompt(asked.prompt)
    return Answered(there, [self._words(one) for one in there], read, sum(map(_length, there)))

  def late(self) -> Refused:
    """A request that took too long."""
    return Refused(503, 'timeout', f'No answer in {self._limits.seconds:g} s.', None,
                   {'Retry-After': '1'})  # fmt: skip

  def _words(self, found: Found) -> str:
    return (
      self._engine.words(found.tokens) if found.label is None else found.entry.labels[found.label]
    )

  def _rows(self, asked: Asked, prompt: Served) -> tuple[list[Row], int]:
    """The texts as rows, and the number of their tokens."""
    longest = min(prompt.lengths.targets, self._limits.tokens)
    limit = min(asked.max_tokens or longest, longest)
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    top_p = asked.top_p if asked.top_p < 1 else 0.0
    rows, read = [], 0
    for number, text in enumerate(asked.texts):
      tokens = self._engine.tokens(text, prompt)
      read += len(tokens)
      rows += [
        Row(asked.prompt, tokens, limit, asked.temperature, 0, top_p, seed, number * asked.n + k)
        for k in range(asked.n)
      ]
    return rows, read

  def _put(
    self, rows: Sequence[Row], settings: Settings, prompt: Served
  ) -> list[asyncio.Future[Found | None]]:
    groups = [self._engine.group(prompt, row.tokens) for row in rows]
    try:
      return self._queue.put(rows, settings, groups)
    except Full as full:
      raise Refused(
        429, 'queue_full', f'{len(self._queue)} texts wait already; {full}.', None,
        {'Retry-After': str(full.seconds)},
      ) from None  # fmt: skip


def _settings(asked: Asked, prompt: Served) -> Settings:
  if prompt.labels:
    return Settings('rank')
  return Settings('generate', sampled=asked.temperature > 0)


def _length(found: Found) -> int:
  return int((found.tokens > 0).sum())
