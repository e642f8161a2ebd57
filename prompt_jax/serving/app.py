"""The server: routes of HTTP on an engine."""

import asyncio
import contextlib
import functools
import gc
import hmac
import logging
import pathlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

import prompt_jax
from prompt_jax.serving import completions, open_inference, watch
from prompt_jax.serving.admin import Admin
from prompt_jax.serving.asking import Answered, Asked, Desk, Limits
from prompt_jax.serving.engine import Engine
from prompt_jax.serving.measures import Measures
from prompt_jax.serving.queue import Queue
from prompt_jax.serving.refused import Refused
from prompt_jax.serving.streaming import Stream
from prompt_jax.serving.watch import Watched

LOG = logging.getLogger('prompt_jax')
CLIENT_GONE = 499  # what proxies count such a request as; nobody sees it
Call = Callable[[Request], Awaitable[Response]]
PAGE = pathlib.Path(__file__).parent / 'page.html'
NO_STORE = {'Cache-Control': 'no-store'}
# The page has its style and script in it, and speaks with this server alone.
PAGE_HEADERS = {
  'Content-Security-Policy': "default-src 'none'; style-src 'unsafe-inline'; "
  "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
  "frame-ancestors 'none'",
  **NO_STORE,
}


class Events(StreamingResponse):
  """Its iterator has ended when it has, also where the client is gone or reads too slowly."""

  async def stream_response(self, send: Send) -> None:
    iterator: Any = self.body_iterator
    async with contextlib.aclosing(iterator):
      await super().stream_response(send)


class Server:
  """The application and what it runs on."""

  def __init__(
    self,
    engine: Engine,
    limits: Limits,
    token: str | None = None,
    admin: Admin | None = None,
    watched: Watched | None = None,
  ):
    """Begins without answering; `app` starts it.

    Args:
      engine: that answers.
      limits: see `Limits`.
      token: that clients must know; None for any client.
      admin: lets prompts be changed over HTTP; None does not.
      watched: a folder whose prompts the engine follows.
    """
    self.engine, self.limits, self._watched = engine, limits, watched
    self.measures = Measures()
    self.status = 'compiling'  # then "ready" or "failed"
    self.started = int(time.time())
    self.queue = Queue(engine, self.measures, limits.rows, limits.waiting)
    self.desk = Desk(engine, self.queue, limits)
    self._answering: asyncio.Task[None] | None = None
    guarded = functools.partial(_guarded, token)
    routes = [
      Route('/', self.page),
      Route('/v1/models', guarded(self.models)),
      Route('/v1/models/{name}', guarded(self.models)),
      Route('/v1/completions', guarded(self.complete), methods=['POST']),
      Route('/v2', guarded(self.about)),
      Route('/v2/health/live', self.live),
      Route('/v2/health/ready', self.health),
      Route('/v2/models/{name}', guarded(self.model)),
      Route('/v2/models/{name}/ready', guarded(self.model)),
      Route('/v2/models/{name}/infer', guarded(self.infer), methods=['POST']),
      Route('/health', self.health),
      Route('/metrics', self.metrics),
    ]
    if admin is not None:
      change = _guarded(admin.token, functools.partial(self.change, admin))
      routes.append(Route('/admin/prompts/{name}', change, methods=['PUT', 'DELETE']))
    errors: Any = {404: _not_found, 405: _not_found, 500: _failed}
    self.app = Starlette(routes=routes, exception_handlers=errors, lifespan=self._running)

  @property
  def ready(self) -> bool:
    return self.status == 'ready'

  @property
  def failed(self) -> bool:
    """Whether nothing is answered any more."""
    return self.status == 'failed' or (self._answering is not None and self._answering.done())

  @contextlib.asynccontextmanager
  async def _running(self, app: Starlette) -> AsyncIterator[None]:
    """Compiles, then answers; at the end what waits is still answered."""
    self._answering = asyncio.create_task(self.queue.run())
    compiling = asyncio.create_task(self._compile())
    yield
    compiling.cancel()
    await asyncio.wait([compiling])
    self.queue.close()
    await self._answering
    gc.unfreeze()

  async def _compile(self) -> None:
    """Compiles every program that a request can ask for; a signal waits for one of them."""
    began = time.monotonic()
    try:
      for program in self.engine.programs():
        await asyncio.get_running_loop().run_in_executor(None, program)
    except Exception:
      self.status = 'failed'
      LOG.exception('a program could not be compiled, and nothing is answered')
      return
    settle()
    self.status = 'ready'
    LOG.info('ready: all programs compiled in %.0f s', time.monotonic() - began)
    while self._watched is not None:
      await asyncio.sleep(watch.SECONDS)
      try:
        if await asyncio.get_running_loop().run_in_executor(None, self._watched.look):
          settle()
      except Exception:
        LOG.exception('the folder could not be looked at')

  async def models(self, request: Request) -> Response:
    """The prompts, or one of them."""
    one = lambda prompt: {
      'id': prompt.name, 'object': 'model', 'created': self.started,
      'owned_by': self.engine.base_model, 'labels': list(prompt.labels) or None,
    }  # fmt: skip
    if 'name' in request.path_params:
      return JSONResponse(one(self.desk.prompt(request.path_params['name'])))
    return JSONResponse({'object': 'list', 'data': [one(p) for p in self.engine.prompts]})

  async def health(self, request: Request) -> Response:
    """200 once every program is compiled; 503 before."""
    about = {'status': self.status, 'ready': self.ready}
    return JSONResponse(about, 200 if self.ready else 503)

  async def live(self, request: Request) -> Response:
    """200 as soon as it listens."""
    return JSONResponse({'live': True})

  async def page(self, request: Request) -> Response:
    """Prompts side by side, for people."""
    return Response(PAGE.read_bytes(), media_type='text/html', headers=PAGE_HEADERS)

  async def about(self, request: Request) -> Response:
    """The server, in the Open Inference Protocol."""
    version = prompt_jax.__version__
    return JSONResponse({'name': 'prompt_jax', 'version': version, 'extensions': []})

  async def model(self, request: Request) -> Response:
    """A prompt, in the Open Inference Protocol; or whether it is ready."""
    prompt = self.desk.prompt(request.path_params['name'])
    if request.url.path.endswith('/ready'):
      about = {'name': prompt.name, 'ready': self.ready}
      return JSONResponse(about, 200 if self.ready else 503)
    return JSONResponse(open_inference.metadata(prompt))

  async def infer(self, request: Request) -> Response:
    """Answers texts, in the Open Inference Protocol."""
    body = await self.body(request, self.limits.bytes)
    prompt = self.desk.prompt(request.path_params['name'])
    asked, wanted, number = open_inference.read(prompt, body)

    async def answer() -> Response:
      answered = await self._answered(request, asked)
      return JSONResponse(open_inference.written(prompt, answered, wanted, number))

    return await self.counted(asked, answer())

  async def metrics(self, request: Request) -> Response:
    self.measures.keep(self.engine.names)
    return PlainTextResponse(self.measures.text(), media_type='text/plain; version=0.0.4')

  async def change(self, admin: Admin, request: Request) -> Response:
    """Adds, replaces or removes a prompt."""
    name: str = request.path_params['name']
    self._check_ready()
    if request.method == 'DELETE':
      return JSONResponse(*await admin.remove(name))
    added = await admin.add(name, await self.body(request, admin.most_bytes))
    settle()
    return JSONResponse(*added)

  def _check_ready(self) -> None:
    if not self.ready:
      raise Refused(503, 'not_ready', 'Programs are being compiled; see /health.', None,
                    {'Retry-After': '5'})  # fmt: skip

  async def complete(self, request: Request) -> Response:
    """Answers texts."""
    asked = completions.read(await self.body(request, self.limits.bytes))

    async def answer() -> Response:
      if asked.stream:
        return self._streamed(asked)
      return JSONResponse(completions.written(asked, await self._answered(request, asked)))

    return await self.counted(asked, answer())

  async def _answered(self, request: Request, asked: Asked) -> Answered:
    answered = await unless_gone(request, self.desk.answer(asked))
    self.measures.read_and_wrote(asked.prompt, answered.read, answered.wrote)
    return answered

  def _streamed(self, asked: Asked) -> Response:
    """Events; the request is counted at their end."""
    began, stream = time.monotonic(), Stream(self.desk, asked, self.limits.seconds)

    async def events() -> AsyncIterator[str]:
      try:
        async with contextlib.aclosing(stream.events()) as own:
          async for event in own:
            yield event
      finally:
        self.measures.request(asked.prompt, stream.status, time.monotonic() - began)
        self.measures.read_and_wrote(asked.prompt, stream.read, stream.wrote)

    return Events(events(), media_type='text/event-stream', headers=NO_STORE)

  async def counted(self, asked: Asked, answering: Coroutine[Any, Any, Response]) -> Response:
    """The response, once the server is ready; counted under its prompt.

    Raises:
      Refused: there is no such prompt, it is asked what it cannot do, or the server is not ready.
    """
    began, status, known = time.monotonic(), 500, False
    try:
      self.desk.prompt(asked.prompt)
      known = True
      self.desk.check(asked)
      self._check_ready()
      response = await answering
      status = response.status_code
      known = not isinstance(response, StreamingResponse)  # counted at its end
      return response
    except Refused as refused:
      status = refused.status
      raise
    except ClientDisconnect:
      status = CLIENT_GONE
      raise
    finally:
      answering.close()
      if known:
        self.measures.request(asked.prompt, status, time.monotonic() - began)

  async def body(self, request: Request, most: int) -> bytes:
    """The whole body.

    Raises:
      Refused: it is larger than `most` bytes, or does not come.
    """
    parts, size = [], 0
    try:
      async with asyncio.timeout(self.limits.seconds):
        async for part in request.stream():
          size += len(part)
          if size > most:
            raise Refused(413, 'too_large', f'A request has at most {most} bytes.')
          parts.append(part)
    except TimeoutError:
      raise Refused(408, 'timeout', f'No whole request in {self.limits.seconds:g} s.') from None
    return b''.join(parts)


def settle() -> None:
  """Garbage collections leave out from now on what is there, programs above all.

  A full collection looks at all of it, and nothing is answered for 0.1 to 0.5 s.
  """
  gc.unfreeze()
  gc.collect()
  gc.freeze()


def _guarded(token: str | None, call: Call) -> Call:
  """The route for those who know the token; mistakes as JSON."""

  async def route(request: Request) -> Response:
    try:
      check_token(request, token)
      return await call(request)
    except Refused as refused:
      return _told(request, refused)
    except ClientDisconnect:
      return Response(status_code=CLIENT_GONE)

  return route


def check_token(request: Request, token: str | None) -> None:
  """Nothing for who knows the token, or where there is none.

  Raises:
    Refused: with status 401.
  """
  scheme, _, given = request.headers.get('authorization', '').partition(' ')
  known = token is None or hmac.compare_digest(given.strip().encode(), token.encode())
  if token is not None and not (known and scheme.lower() == 'bearer'):
    raise Refused(
      401, 'invalid_api_key', 'Expected a header "Authorization: Bearer TOKEN" with the token.',
      headers={'WWW-Authenticate': 'Bearer'},
    )  # fmt: skip


async def unless_gone(request: Request, answering: Any) -> Any:
  """The answer.

  Raises:
    ClientDisconnect: the client is gone, and the work for it is dropped.
  """

  async def gone() -> None:
    while (await request.receive())['type'] != 'http.disconnect':
      pass

  answer, leaving = asyncio.ensure_future(answering), asyncio.ensure_future(gone())
  try:
    await asyncio.wait({answer, leaving}, return_when=asyncio.FIRST_COMPLETED)
    if not answer.done():
      raise ClientDisconnect
    return await answer
  finally:
    leaving.cancel()
    answer.cancel()


async def _not_found(request: Request, error: Any) -> Response:
  refused = Refused(error.status_code, 'not_found', 'Known: /, /v1/models, /v1/completions (POST), '
                    '/v2/models/NAME/infer (POST), /health, /metrics.')  # fmt: skip
  refused.headers.update(error.headers or {})
  return _told(request, refused)


async def _failed(request: Request, error: Exception) -> Response:
  LOG.error('a request failed', exc_info=error)
  return _told(request, Refused(500, 'internal', 'The server failed; see its log.'))


def _told(request: Request, refused: Refused) -> Response:
  """The mistake as JSON, in the form of the protocol that the path is of."""
  of_v2 = request.url.path.partition('/')[2].partition('/')[0] == 'v2'
  body = {'error': str(refused)} if of_v2 else refused.body()
  return JSONResponse(body, refused.status, refused.headers)
