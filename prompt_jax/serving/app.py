"""The server: routes of HTTP on a bank of prompts."""

import asyncio
import contextlib
import dataclasses
import hmac
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from prompt_jax.data.example import encode
from prompt_jax.errors import UserError
from prompt_jax.serving import completions
from prompt_jax.serving.batch import Row, Settings, fit
from prompt_jax.serving.completions import Asked, Refused
from prompt_jax.serving.measures import Measures
from prompt_jax.serving.queue import Full, Queue
from prompt_jax.serving.tuned_prompts import TunedPrompts

LOG = logging.getLogger('prompt_jax')
CLIENT_GONE = 499  # what proxies count such a request as; nobody sees it
SAMPLED = (False, True)


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


class Server:
  """The application and what it runs on."""

  def __init__(self, prompts: TunedPrompts, limits: Limits, token: str | None = None):
    """Begins without answering; `app` starts it.

    Args:
      prompts: that answer.
      limits: see `Limits`.
      token: that clients must know; None for any client.
    """
    self.prompts, self.limits, self.token = prompts, limits, token
    self.measures = Measures()
    self.status = 'compiling'  # then "ready" or "failed"
    self.started = int(time.time())
    self.queue = Queue(prompts.programs, self.measures, limits.rows, limits.waiting)
    routes = [
      Route('/v1/models', self._guarded(self.models)),
      Route('/v1/completions', self._guarded(self.complete), methods=['POST']),
      Route('/health', self.health),
      Route('/metrics', self.metrics),
    ]
    errors: Any = {404: _not_found, 405: _not_found, 500: _failed}
    self.app = Starlette(routes=routes, exception_handlers=errors, lifespan=self._running)

  @property
  def ready(self) -> bool:
    return self.status == 'ready'

  @contextlib.asynccontextmanager
  async def _running(self, app: Starlette) -> AsyncIterator[None]:
    """Compiles, then answers; at the end what waits is still answered."""
    loop = asyncio.get_running_loop()
    answering = asyncio.create_task(self.queue.run())
    compiling = asyncio.create_task(self._warm(loop))
    yield
    compiling.cancel()
    self.queue.close()
    await answering

  async def _warm(self, loop: asyncio.AbstractEventLoop) -> None:
    """Compiles every program that a request can ask for."""
    began = time.monotonic()
    try:
      for rows, settings in self.every_shape():
        await loop.run_in_executor(None, self.prompts.programs, rows, settings)
    except Exception:
      self.status = 'failed'
      LOG.exception('a program could not be compiled, and nothing is answered')
      return
    self.status = 'ready'
    LOG.info('ready: all programs compiled in %.0f s', time.monotonic() - began)

  def every_shape(self) -> list[tuple[list[Row], Settings]]:
    """A batch for each program."""
    shapes, bank = self.prompts.programs.shapes, self.prompts.bank
    kinds: dict[tuple[int, bool], str] = {}
    for name in bank.names:
      kinds.setdefault((id(bank[name].group), bool(bank[name].labels)), name)
    batches = []
    for (_, labels), name in kinds.items():
      ways = [Settings('rank')] if labels else [Settings('generate', sampled=s) for s in SAMPLED]
      for settings in ways:
        for width in shapes.texts:
          for longest in [1] if labels else shapes.answers:
            tokens = np.full(width, 1, np.int32)
            for count in shapes.rows:
              batches.append(([Row(name, tokens, longest)] * count, settings))
    return batches

  def _guarded(
    self, call: Callable[[Request], Awaitable[Response]]
  ) -> Callable[[Request], Awaitable[Response]]:
    """The route for those who know the token; mistakes as JSON."""

    async def route(request: Request) -> Response:
      try:
        self._check_token(request)
        return await call(request)
      except Refused as refused:
        return JSONResponse(refused.body(), refused.status, refused.headers)

    return route

  def _check_token(self, request: Request) -> None:
    if self.token is None:
      return
    given = request.headers.get('authorization', '')
    if not hmac.compare_digest(given.encode(), f'Bearer {self.token}'.encode()):
      raise Refused(
        401, 'invalid_api_key', 'Expected a header "Authorization: Bearer TOKEN" with the token.',
        headers={'WWW-Authenticate': 'Bearer'},
      )  # fmt: skip

  async def models(self, request: Request) -> Response:
    """The prompts."""
    names = self.prompts.names
    one = lambda name: {
      'id': name, 'object': 'model', 'created': self.started,
      'owned_by': self.prompts.bank.backbone.name,
      'labels': list(self.prompts.bank[name].labels) or None,
    }  # fmt: skip
    return JSONResponse({'object': 'list', 'data': [one(name) for name in names]})

  async def health(self, request: Request) -> Response:
    """200 once every program is compiled; 503 before."""
    return JSONResponse({'status': self.status}, 200 if self.ready else 503)

  async def metrics(self, request: Request) -> Response:
    return PlainTextResponse(self.measures.text(), media_type='text/plain; version=0.0.4')

  async def complete(self, request: Request) -> Response:
    """Answers texts."""
    began, status, prompt = time.monotonic(), 500, ''
    try:
      asked = completions.read(await self._body(request))
      if asked.prompt not in self.prompts.names:
        raise Refused(404, 'model_not_found', f'There is no prompt {asked.prompt[:80]!r}.', 'model')
      prompt = asked.prompt
      if not self.ready:
        raise Refused(503, 'not_ready', 'Programs are being compiled; see /health.', None,
                      {'Retry-After': '5'})  # fmt: skip
      answer = await self._unless_gone(request, self._answer(asked))
      status = 200 if answer is not None else CLIENT_GONE
      return JSONResponse(answer) if answer is not None else Response(status_code=CLIENT_GONE)
    except Refused as refused:
      status = refused.status
      raise
    except ClientDisconnect:
      status = CLIENT_GONE
      return Response(status_code=CLIENT_GONE)
    finally:
      if prompt:
        self.measures.request(prompt, status, time.monotonic() - began)

  async def _body(self, request: Request) -> bytes:
    """The whole body, unless it is larger than the limit."""
    parts, size = [], 0
    async for part in request.stream():
      size += len(part)
      if size > self.limits.bytes:
        raise Refused(413, 'too_large', f'A request has at most {self.limits.bytes} bytes.')
      parts.append(part)
    return b''.join(parts)

  async def _unless_gone(self, request: Request, answering: Any) -> Any:
    """The answer; None, and no work, once the client is gone."""

    async def gone() -> None:
      while (await request.receive())['type'] != 'http.disconnect':
        pass

    answer, leaving = asyncio.ensure_future(answering), asyncio.ensure_future(gone())
    try:
      await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
      return await answer if answer.done() else None
    finally:
      leaving.cancel()
      answer.cancel()

  async def _answer(self, asked: Asked) -> Any:
    """The JSON of the answer."""
    try:
      entry = self.prompts.bank[asked.prompt]
    except UserError:
      raise Refused(404, 'model_not_found', 'The prompt was removed.', 'model') from None
    words = self.prompts.bank.backbone.vocabulary
    longest = min(entry.lengths.targets, self.limits.tokens)
    limit = min(asked.max_tokens or longest, longest)
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    rows, read = [], 0
    for number, text in enumerate(asked.texts):
      tokens = encode(text, words, entry.lengths.inputs)
      read += len(tokens)
      top_p = asked.top_p if asked.top_p < 1 else 0.0
      rows += [
        Row(asked.prompt, tokens, limit, asked.temperature, 0, top_p, seed, number * asked.n + k)
        for k in range(asked.n)
      ]
    way = 'rank' if entry.labels else 'generate'
    sampled = way == 'generate' and asked.temperature > 0
    settings = Settings('rank') if entry.labels else Settings('generate', sampled=sampled)
    sizes = self.prompts.programs.shapes.texts
    groups = [(id(entry.group), fit(len(row.tokens), sizes)) for row in rows]
    try:
      waiting = self.queue.put(rows, settings, groups)
    except Full as full:
      raise Refused(
        429, 'queue_full', f'{len(self.queue)} texts wait already; {full}.', None,
        {'Retry-After': str(full.seconds)},
      ) from None  # fmt: skip
    try:
      found = await asyncio.wait_for(asyncio.gather(*waiting), self.limits.seconds)
    except TimeoutError:
      raise Refused(503, 'timeout', f'No answer in {self.limits.seconds:g} s.', None,
                    {'Retry-After': '1'}) from None  # fmt: skip
    finally:
      for each in waiting:
        each.cancel()
    if any(one is None for one in found):
      raise Refused(404, 'model_not_found', 'The prompt was removed.', 'model')
    texts = [self.prompts.answer('', one).prediction for one in found]
    return completions.written(asked, found, texts, read)


async def _not_found(request: Request, error: Any) -> Response:
  refused = Refused(error.status_code, 'not_found', 'Known: /v1/models, /v1/completions (POST), '
                    '/health, /metrics.')  # fmt: skip
  return JSONResponse(refused.body(), refused.status, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
  LOG.error('a request failed', exc_info=error)
  return JSONResponse(Refused(500, 'internal', 'The server failed; see its log.').body(), 500)
