"""Texts of a request on their way to the queue and back, whatever the form of the request."""

import asyncio
import dataclasses
import secrets
from collections.abc import Sequence

import numpy as np

from prompt_jax.errors import UserError
from prompt_jax.serving.engine import Engine
from prompt_jax.serving.queue import Full, Queue, Told
from prompt_jax.serving.refused import Refused, no_prompt, wrong
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
    best_of: samples of each text, of which the `n` most probable by token are the answers.
    beams: width of a beam search; 1 for none.
    stream: whether text comes as it is written.
    usage: whether a stream ends with the number of tokens.
    logprobs: whether log-probabilities are asked for.
  """

  prompt: str
  texts: tuple[str, ...]
  max_tokens: int | None = None
  temperature: float = 0.0
  top_p: float = 1.0
  seed: int | None = None
  n: int = 1
  best_of: int = 1
  beams: int = 1
  stream: bool = False
  usage: bool = False
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

  def check(self, asked: Asked) -> None:
    """Refuses what would have no effect with this prompt or engine.

    Raises:
      Refused: with status 400; or there is no such prompt.
    """
    labels = self.prompt(asked.prompt).labels
    several = {'n': asked.n > 1, 'best_of': asked.best_of > asked.n}
    for name, given in (several | {'beams': asked.beams > 1, 'stream': asked.stream}).items():
      if given and labels:
        raise wrong(
          f'{asked.prompt!r} answers one of its labels, for which {name} has no effect.', name
        )
    for name, given in several.items():
      if given and not asked.temperature:
        raise wrong(f'{name} has no effect without a temperature above 0.', name)
    if asked.beams > 1 and asked.beams not in self._engine.beams:
      widths = ', '.join(map(str, self._engine.beams)) or 'none; the server sets one'
      raise wrong(f'beams is {asked.beams}; here can be had: {widths}.', 'beams')
    if asked.beams > 1 and asked.temperature:
      raise wrong('beams is a search, without a temperature.', 'beams')
    for name, given in (('beams', asked.beams > 1), ('best_of', asked.best_of > asked.n),
                        ('logprobs', asked.logprobs)):  # fmt: skip
      if given and asked.stream:
        raise wrong(f'{name} is known at the end alone, so not with stream.', name)

  async def answer(self, asked: Asked) -> Answered:
    """The answers to a request.

    Raises:
      Refused: the prompt is not there, there is no room, or it takes too long.
    """
    prompt = self.prompt(asked.prompt)
    rows, read = self.rows(asked, prompt)
    waiting = self.put(rows, _settings(asked, prompt), prompt)
    try:
      async with asyncio.timeout(self._limits.seconds):
        found = await asyncio.gather(*waiting)
    except TimeoutError:
      raise self.late() from None
    finally:
      for each in waiting:
        each.cancel()
    there = [one for one in found if one is not None]
    if len(there) < len(found) or len({id(one.entry) for one in there}) > 1:
      raise self.changed(asked.prompt)
    wrote = sum(map(_length, there))
    there = _best(there, asked.best_of, asked.n)
    return Answered(there, [self.words(one) for one in there], read, wrote)

  def changed(self, name: str) -> Refused:
    """A request whose prompt was taken out, or replaced by another, before all was answered."""
    if name not in self._engine.names:
      return no_prompt(name)
    return Refused(503, 'prompt_replaced', f'The prompt {name!r} was replaced; ask again.', None,
                   {'Retry-After': '1'})  # fmt: skip

  def late(self) -> Refused:
    """A request that took too long."""
    return Refused(503, 'timeout', f'No answer in {self._limits.seconds:g} s.', None,
                   {'Retry-After': '1'})  # fmt: skip

  def words(self, found: Found) -> str:
    """The answer as text."""
    return self.text(found.tokens) if found.label is None else found.entry.labels[found.label]

  def text(self, tokens: np.ndarray) -> str:
    """Tokens as text."""
    return self._engine.words(tokens)

  def rows(self, asked: Asked, prompt: Served) -> tuple[list[Row], int]:
    """The texts as rows, and the number of their tokens."""
    longest = min(prompt.lengths.targets, self._limits.tokens)
    limit = min(asked.max_tokens or longest, longest)
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    top_p = asked.top_p if asked.top_p < 1 else 0.0
    rows, read = [], 0
    for number, text in enumerate(asked.texts):
      tokens = self._engine.tokens(text, prompt)
      read += len(tokens)
      for k in range(number * asked.best_of, (number + 1) * asked.best_of):
        rows.append(Row(asked.prompt, tokens, limit, asked.temperature, 0, top_p, seed, k))
    return rows, read

  def put(
    self,
    rows: Sequence[Row],
    settings: Settings,
    prompt: Served,
    told: Sequence[Told] | None = None,
  ) -> list[asyncio.Future[Found | None]]:
    """Lines up rows, see `Queue.put`.

    Raises:
      Refused: there is no room, or never for as many.
    """
    if len(rows) > self._limits.waiting:
      raise wrong(
        f'{len(rows)} answers are asked for; here at most {self._limits.waiting} can wait.',
        'prompt',
      )
    groups = [self._engine.group(prompt, row.tokens) for row in rows]
    try:
      return self._queue.put(rows, settings, groups, told)
    except Full as full:
      raise Refused(
        429, 'queue_full', f'{len(self._queue)} texts wait already; {full}.', None,
        {'Retry-After': str(full.seconds)},
      ) from None  # fmt: skip


def _settings(asked: Asked, prompt: Served) -> Settings:
  if prompt.labels:
    return Settings('rank')
  return Settings('generate', beams=asked.beams, sampled=asked.temperature > 0)


def _best(found: list[Found], best_of: int, n: int) -> list[Found]:
  """The n most probable by token of each best_of, in the order of their probability."""
  if best_of == n:
    return found
  by_token = lambda one: one.log_prob / max(1, _length(one))
  texts = [found[i : i + best_of] for i in range(0, len(found), best_of)]
  return [one for some in texts for one in sorted(some, key=by_token, reverse=True)[:n]]


def _length(found: Found) -> int:
  return int((found.tokens > 0).sum())
