"""Text that comes as it is written: server-sent events in the form of OpenAI's completions."""

import asyncio
import functools
import json
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

import numpy as np

from prompt_jax.serving.asking import Asked, Desk
from prompt_jax.serving.completions import choice_of, finish_reason, head, usage
from prompt_jax.serving.refused import Refused
from prompt_jax.serving.rows import STREAMED, Found

LOG = logging.getLogger('prompt_jax')
PARTIAL = '\ufffd'  # what a character is while its last bytes have not come
DONE = 'data: [DONE]\n\n'


class Stream:
  """The answers to one request, in the queue from the beginning.

  Attributes:
    status: that the whole has in the end, of HTTP.
    read: tokens of the texts.
  """

  def __init__(self, desk: Desk, asked: Asked, seconds: float):
    """Lines up the rows.

    Args:
      desk: where.
      asked: the request.
      seconds: that it may take.

    Raises:
      Refused: there is no prompt of that name, or no room.
    """
    self._desk, self._asked, self._seconds = desk, asked, seconds
    self._head, self.status = head(asked), 499
    prompt = desk.prompt(asked.prompt)
    rows, self.read = desk.rows(asked, prompt)
    self._came: asyncio.Queue[tuple[int, int | None]] = asyncio.Queue()
    self._wrote: list[list[int]] = [[] for _ in rows]
    self._sent = [''] * len(rows)
    told = [self._note(i) for i in range(len(rows))]
    self._waiting = desk.put(rows, STREAMED, prompt, told)
    for i, each in enumerate(self._waiting):
      each.add_done_callback(functools.partial(self._end, i))

  @property
  def wrote(self) -> int:
    """Tokens of the answers until now."""
    return sum(map(len, self._wrote))

  def _end(self, number: int, found: object) -> None:
    del found
    self._came.put_nowait((number, None))

  def _note(self, number: int) -> Callable[[int], None]:
    return lambda token: self._came.put_nowait((number, token))

  async def events(self) -> AsyncGenerator[str, None]:
    """Each with what is new of one answer; a mistake on the way is an event too, the last one."""
    try:
      async with asyncio.timeout(self._seconds):
        left = len(self._waiting)
        while left:
          i, token = await self._came.get()
          if token is None:
            left -= 1
            yield self._event(self._last(i, self._waiting[i].result()))
          elif token and (new := self._new(i, token)):
            yield self._event(choice_of(i, new, None))
      if self._asked.usage:
        counts = usage(self.read, self.wrote)
        yield f'data: {json.dumps({**self._head, "choices": [], "usage": counts})}\n\n'
      self.status = 200
      yield DONE
    except TimeoutError:
      yield self._failed(self._desk.late())
    except Refused as refused:
      yield self._failed(refused)
    except Exception:
      LOG.exception('a stream failed')
      yield self._failed(Refused(500, 'internal', 'The server failed; see its log.'))
    finally:
      for each in self._waiting:
        each.cancel()

  def _event(self, choice: dict[str, Any]) -> str:
    return f'data: {json.dumps({**self._head, "choices": [choice]})}\n\n'

  def _failed(self, refused: Refused) -> str:
    self.status = refused.status
    return f'data: {json.dumps(refused.body())}\n\n'

  def _new(self, number: int, token: int) -> str:
    """What a token adds to the text."""
    self._wrote[number].append(token)
    text, sent = self._desk.text(np.array(self._wrote[number], np.int32)), self._sent[number]
    if text.endswith(PARTIAL) or not text.startswith(sent):
      return ''
    self._sent[number] = text
    return text.removeprefix(sent)

  def _last(self, number: int, found: Found | None) -> dict[str, Any]:
    """The rest of an answer."""
    if found is None:
      raise self._desk.changed(self._asked.prompt)
    text = self._desk.words(found)
    return choice_of(number, text.removeprefix(self._sent[number]), finish_reason(found))
